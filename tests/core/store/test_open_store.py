"""URLs and the environment's settings."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from components.core.errors import ExitCode, StoreError, UsageError
from components.core.store import FolderStore, bucket_and_key, is_remote, local_path, open_store
from components.core.store.settings import S3Settings, _warn_of_white_space

CANARY = "canary-5d1f-secret"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "MINIO_ACCESS_KEY", "AWS_PROFILE", "MOCO_S3_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


def test_a_path_and_a_file_url_are_the_same_folder(tmp_path: Path) -> None:
    folder = tmp_path / "with space"

    for url in (str(folder), folder.as_uri(), folder):
        store = open_store(url)
        assert isinstance(store, FolderStore)
        assert store.folder == folder
        assert not is_remote(url)
    assert is_remote("s3://bucket/prefix")
    assert is_remote("minio://bucket")


def test_a_buckets_url_has_the_bucket_and_a_key_in_it() -> None:
    assert bucket_and_key("s3://bucket/a/b/") == ("s3://bucket", "a/b")
    assert bucket_and_key("minio://bucket/") == ("minio://bucket", "")


def test_a_file_url_is_a_path_wherever_one_is_meant(tmp_path: Path) -> None:
    folder = tmp_path / "with space"

    for url in (folder, str(folder), folder.as_uri(), f"file:{folder.as_posix()}"):
        assert local_path(str(url).replace(" ", "%20") if "file:" in str(url) else url) == folder
    assert local_path("relative/a:b") == Path("relative/a:b")
    assert local_path("./s3:/b") == Path("s3:/b")
    with pytest.raises(UsageError, match="s3://bucket/x is in a bucket"):
        local_path("s3://bucket/x")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3:/bucket/x", "two slashes, s3://bucket/x"),
        ("S3:/bucket/x", "two slashes, s3://bucket/x"),
        ("s3:bucket/x", "two slashes, s3://bucket/x"),
        ("minio:/bucket", "two slashes, minio://bucket"),
        ("s3://bucket/x\n", "remove the blank or line break"),
        (" s3://bucket/x", "remove the blank or line break"),
        ("https://host/model.pth", "fetch it, and give its path"),
        ("https:/host/model.pth", "fetch it, and give its path"),
        ("gs:/bucket/x", "names no store"),
        ("file://host/folder", "names no store"),
    ],
)
def test_what_only_looks_like_a_url_is_nowhere_taken_for_a_folder(url: str, words: str) -> None:
    for take in (is_remote, local_path, open_store):
        with pytest.raises(UsageError, match=words) as failure:
            take(url)
        assert repr(url) in str(failure.value)


@pytest.mark.parametrize(
    "url", ["gs://bucket/prefix", "http://host/x", "s3://", "s3:///x", "s3://B"]
)
def test_a_url_that_names_no_store_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)

    with pytest.raises(UsageError, match=url.partition(":")[0]) as failure:
        open_store(url)

    assert failure.value.exit_code is ExitCode.USAGE


def test_a_bucket_without_credentials_says_which_to_set() -> None:
    with pytest.raises(StoreError, match="AWS_ACCESS_KEY_ID"):
        open_store("s3://bucket/prefix")


def test_minio_without_an_endpoint_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIO_ACCESS_KEY", "someone")
    monkeypatch.setenv("MINIO_SECRET_KEY", CANARY)

    with pytest.raises(StoreError, match="MOCO_S3_ENDPOINT"):
        open_store("minio://bucket/prefix")


def test_credentials_come_from_a_profile_of_the_usual_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "credentials").write_text(
        f"[lab]\naws_access_key_id = from-file\naws_secret_access_key = {CANARY}\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "lab")

    credentials = S3Settings.from_environment().credentials().retrieve()

    assert credentials.access_key == "from-file"
    assert credentials.secret_key == CANARY


@pytest.fixture
def account_server() -> Iterator[tuple[str, list[str]]]:
    """Give out credentials as a pod's agent does; also return the tokens that it was shown."""
    tokens: list[str] = []

    class Agent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            tokens.append(self.headers.get("Authorization", ""))
            given = {"AccessKeyId": "from-account", "SecretAccessKey": CANARY, "Token": "token"}
            body = json.dumps({**given, "Expiration": "2099-01-01T00:00:00Z"}).encode()
            self.send_response(200 if self.path == "/account" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Agent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", tokens
        server.shutdown()


def test_only_the_given_environment_says_who_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, account_server: tuple[str, list[str]]
) -> None:
    url, tokens = account_server
    full_uri = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
    (tmp_path / "mine").write_text(
        f"[lab]\naws_access_key_id = mine\naws_secret_access_key = {CANARY}\n"
    )
    (tmp_path / "given").write_text(
        f"[default]\naws_access_key_id = given\naws_secret_access_key = {CANARY}\n"
    )
    for name, value in {
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "mine"),
        "AWS_PROFILE": "lab",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "my-token"),
        "AWS_ROLE_ARN": "arn:aws:iam::1:role/mine",
        full_uri: f"{url}/mine",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "my-token",
    }.items():
        monkeypatch.setenv(name, value)

    def access_key(environment: dict[str, str]) -> str:
        settings = S3Settings.from_environment(environment)
        return settings.credentials(environment).retrieve().access_key

    assert access_key({"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "given")}) == "given"
    assert not tokens
    none = {"HOME": str(tmp_path)}
    token = {"AWS_CONTAINER_AUTHORIZATION_TOKEN": "given-token"}
    assert access_key({**none, full_uri: f"{url}/account", **token}) == "from-account"
    assert tokens == ["given-token"]

    with pytest.raises(StoreError, match="no credentials for the store: set AWS_ACCESS_KEY_ID"):
        open_store("s3://bucket", none)
    store = open_store("s3://bucket", {**none, full_uri: f"{url}/nothing", "AWS_REGION": "r"})
    with pytest.raises(StoreError, match=f"service account gives no credentials.*{full_uri}"):
        store.list()


def test_settings_come_from_the_first_variable_that_is_set() -> None:
    settings = S3Settings.from_environment(
        {
            "AWS_ENDPOINT_URL": "http://ignored:1",
            "MOCO_S3_ENDPOINT": "https://store:9000/",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "MOCO_S3_RETRY_SECONDS": "7.5",
            "MINIO_ACCESS_KEY": "someone",
            "MINIO_SECRET_KEY": CANARY,
        }
    )

    assert settings.endpoint == "https://store:9000"
    assert (settings.region, settings.retry_seconds) == ("eu-west-1", 7.5)
    assert settings.access_key == "someone"
    assert CANARY not in repr(settings) + str(settings) + settings.model_dump_json()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MOCO_S3_ENDPOINT", "store:9000"),
        ("MOCO_S3_ENDPOINT", f"http://someone:{CANARY}@store:9000"),
        ("MOCO_S3_ENDPOINT", f"http://:{CANARY}@store:9000"),
        ("MOCO_S3_ENDPOINT", f"http://someone:{CANARY}@store:port"),
        ("MOCO_S3_ENDPOINT", "http://store:9000/bucket"),
        ("MOCO_S3_ENDPOINT", "http://store:99999"),
        ("MOCO_S3_ENDPOINT", "http://store:0"),
        ("MOCO_S3_ENDPOINT", "http://store:port"),
        ("MOCO_S3_ENDPOINT", "http://the store:9000"),
        ("MOCO_S3_ENDPOINT", "http://the\nstore:9000"),
        ("MOCO_S3_ENDPOINT", "http://[::1:9000"),
        ("MOCO_S3_ENDPOINT", "http:/store:9000"),
        ("AWS_REGION", "us east 1"),
        ("AWS_REGION", "us-east-1\nx"),
        ("AWS_ACCESS_KEY_ID", "some one"),
        ("AWS_ACCESS_KEY_ID", "some\none"),
        ("AWS_ACCESS_KEY_ID", "\u200bsomeone"),
        ("AWS_SECRET_ACCESS_KEY", f"{CANARY}\n{CANARY}"),
        ("AWS_SESSION_TOKEN", f"{CANARY}\n{CANARY}"),
        ("MOCO_S3_RETRY_SECONDS", "-1"),
        ("MOCO_S3_ADDRESSING", "sideways"),
        ("AWS_CA_BUNDLE", "/no/such/file.pem"),
    ],
)
def test_a_wrong_setting_names_its_variable_and_shows_no_secret(name: str, value: str) -> None:
    environment = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": CANARY, name: value}

    with pytest.raises(StoreError, match=name) as failure:
        S3Settings.from_environment(environment)

    assert CANARY not in str(failure.value)


def test_white_space_around_a_setting_is_left_out_and_its_variable_named() -> None:
    _warn_of_white_space.cache_clear()
    environment = {
        "MOCO_S3_ENDPOINT": " https://store:9000/\n",
        "AWS_REGION": "us-east-1\r\n",
        "AWS_ACCESS_KEY_ID": "someone\n",
        "AWS_SECRET_ACCESS_KEY": f"{CANARY}\n",
        "AWS_SESSION_TOKEN": "token \n",
        "MOCO_S3_RETRY_SECONDS": "7\n",
    }

    with capture_logs() as said:
        settings = S3Settings.from_environment(environment)

    credentials = settings.credentials({}).retrieve()
    assert (settings.endpoint, settings.region) == ("https://store:9000", "us-east-1")
    assert settings.retry_seconds == 7
    assert (credentials.access_key, credentials.secret_key) == ("someone", CANARY)
    assert credentials.session_token == "token"
    assert {warning["variable"] for warning in said} == {*environment}
    assert CANARY not in str(said)


@pytest.mark.parametrize(
    "endpoint", ["http://[::1]:9000", "https://10.0.0.1", "http://my_store.lan:65535"]
)
def test_an_address_of_any_kind_is_an_endpoint(endpoint: str) -> None:
    assert S3Settings.from_environment({"MOCO_S3_ENDPOINT": endpoint}).endpoint == endpoint


def test_a_profile_with_a_key_that_cannot_be_sent_is_refused_without_showing_it(
    tmp_path: Path,
) -> None:
    file = tmp_path / "bad"
    file.write_text(f"[default]\naws_access_key_id = a b\naws_secret_access_key = {CANARY}\n")

    with pytest.raises(StoreError, match="profile of the AWS credentials file") as failure:
        open_store("s3://bucket", {"AWS_SHARED_CREDENTIALS_FILE": str(file)})

    assert CANARY not in str(failure.value)


def test_half_a_pair_of_keys_is_refused() -> None:
    with pytest.raises(StoreError, match="AWS_SECRET_ACCESS_KEY"):
        S3Settings.from_environment({"AWS_ACCESS_KEY_ID": "someone"})
