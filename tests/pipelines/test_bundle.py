"""`moco doctor --bundle`: what a report of a fault needs, and no credential in any of it."""

import base64
import http.server
import json
import os
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from components.core.errors import DiskFullError, ExitCode, NotWritableError, UsageError
from components.core.stage import Stage
from pipelines.__main__ import main
from pipelines.backends.kubeflow.record import ClusterRun
from pipelines.backends.kubeflow.workflow import NODE
from pipelines.cli.bundle import LINES, Bundle, reserved
from pipelines.cli.redaction import Redactor
from pipelines.plan import Existing, Plan
from pipelines.runs.folder import Run, create_run
from pipelines.runs.logs import parse_line
from pipelines.runs.record import StepStatus

pytestmark = pytest.mark.usefixtures("world")
Capture = pytest.CaptureFixture[str]

# Each stands in one place at least, and in no file of a bundle.
KEY = "can/ary+key=1"
PLANTED = {
    "environment": KEY,
    "token": "canary-token-2",
    "another": "canary-another-3",
    "proxy": "canary-proxy-4",
    "endpoint": "canary-endpoint-5",
    "profile": "canary-profile-6",
    "kubeconfig": "canary-kubeconfig-7",
    "header": "canary-header-8",
    "field": "canary field 9",
    "words": "canary-words-10",
    "signature": "canaryf00d11",
    "option": "canary-option-12",
    "store": "canary-store-13",
    "checkpoint": "canary-checkpoint-14",
    "mount": "canary-mount-15",
    "reason": "canary-reason-16",
    "private": "canaryPrivateKey17",
    "file": "canary-file-18",
    "key id": "AKIACANARY19ABCDEFGH",
    "unnamed": "canary-unnamed-20",
    "user": "canary-user-21",
    "stored": "canary-stored-22",
}
LOG = [
    '{"event": "epoch finished", "epoch": 3, "loss": 1.5, "timestamp": "2026-01-01T10:00:00Z"}',
    f'{{"event": "asked", "headers": {{"Authorization": "Bearer {PLANTED["header"]}"}}}}',
    f"Authorization: Bearer {PLANTED['header']}",
    f"> authorization = Basic {PLANTED['header']}",
    json.dumps({"event": "connected", "secret_key": PLANTED["field"], "step": 4}),
    f"export AWS_SESSION_TOKEN={PLANTED['words']}; password: '{PLANTED['words']}'",
    f"{{'api_key': '{PLANTED['words']}', 'n': 1}}; curl --token {PLANTED['words']}",
    f"curl -u me:{PLANTED['user']} http://store",
    f"GET http://store/b/k?X-Amz-Signature={PLANTED['signature']}&X-Amz-Date=1",
    f"as text {KEY}, in a URL {quote(KEY, safe='')}, encoded {base64.b64encode(KEY.encode())!r}",
    f"-----BEGIN RSA PRIVATE KEY-----\n{PLANTED['private']}\n-----END RSA PRIVATE KEY-----",
    f"signed by {PLANTED['key id']} and {PLANTED['file']} from {PLANTED['kubeconfig']}",
    " ".join(PLANTED[name] for name in ("token", "another", "proxy", "endpoint", "profile")),
    "the last line",
]


def contents(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def assert_no_secret(files: Mapping[str, str]) -> None:
    for where, secret in PLANTED.items():
        for form in (secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode()):
            assert [name for name, text in files.items() if form in text] == [], where


@pytest.fixture
def run(toy: Stage[Any], runs: Path) -> Run:
    """A run that failed, with credentials in its plan, record, status and log."""
    plan = Plan("small", "digits")
    uri = f"https://me:{PLANTED['checkpoint']}@host/a.pth?sig={PLANTED['signature']}"
    plan.add(toy, "only", toy.config(), model=Existing(uri, "Model"))
    run = create_run(runs, plan, {"pictures": f"s3://me:{PLANTED['mount']}@bucket/pictures"})
    run.write_record(run.record.model_copy(update={"state": "failed"}))
    reason = f"refused\n{{'authorization': 'Bearer {PLANTED['reason']}'}}\nnot accepted"
    run.write_status("only", StepStatus(state="failed", reason=reason, attempt=1, exit_code=69))
    run.log("only").write_text("\n".join(LOG))
    return run


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Credentials wherever this process may find them, and a cluster that does not answer."""
    home = tmp_path / "home"
    (home / ".aws").mkdir(parents=True)
    profile = f"[default]\naws_access_key_id = {PLANTED['key id']}\n"
    (home / ".aws" / "credentials").write_text(
        f"{profile}aws_secret_access_key = {PLANTED['profile']}\n"
    )
    (home / "token").write_text(f"{PLANTED['file']}\n")
    user = {"name": "me", "user": {"token": PLANTED["kubeconfig"]}}
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [user],
    }
    import yaml

    (home / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    store = f"http://me:{PLANTED['store']}@store:9000"
    (home / "cluster.json").write_text(json.dumps({"store_endpoint": store}))
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "HOME": str(home),
        "KUBECONFIG": str(home / "kubeconfig"),
        "MOCO_CLUSTER": str(home / "cluster.json"),
        "AWS_ACCESS_KEY_ID": PLANTED["key id"],
        "AWS_SECRET_ACCESS_KEY": f"{KEY}\n",
        "MOCO_KFP_TOKEN": PLANTED["token"],
        "SOME_SERVICE_API_KEY": PLANTED["another"],
        "SOME_TOKEN_FILE": str(home / "token"),
        "HTTPS_PROXY": f"http://me:{PLANTED['proxy']}@proxy:3128",
        "MOCO_S3_ENDPOINT": f"http://me:{PLANTED['endpoint']}@127.0.0.1:1",
        "UNNAMED": PLANTED["unnamed"],
    }.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_no_credential_is_in_a_bundle_wherever_it_stood(
    run: Run, secrets: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "bundle.zip"
    option = f"store_secret={PLANTED['option']}"
    arguments = ["--bundle", str(file), "--run", run.id, "--cluster", option, "--no-pods"]

    assert main(["doctor", "toys", "--scale", "digits", *arguments]) == ExitCode.OK

    files = contents(file)
    assert_no_secret(files)
    shown = capsys.readouterr()
    assert_no_secret({"stdout": shown.out, "stderr": shown.err})
    assert {"cluster.json", "doctor.json", "plan.json", "run/run.json"} < set(files)
    assert json.loads(files["cluster.json"])["store_endpoint"] == "http://[redacted]@store:9000"
    assert "SOME_SERVICE_API_KEY\n" in files["environment.txt"]
    assert str(tmp_path / "home") not in "".join(files.values())
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_bundle_has_what_a_report_needs(
    run: Run, secrets: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "bundle.zip"
    (tmp_path / "packages" / "broken-1.dist-info").mkdir(parents=True)
    secrets.syspath_prepend(tmp_path / "packages")
    assert main(["doctor", "--bundle", str(file), "--run", run.id]) == ExitCode.OK

    files = contents(file)
    versions = json.loads(files["versions.json"])
    assert {"moco-transfer", "python", "platform", "packages"} <= set(versions)
    assert "pydantic" in versions["packages"]
    assert json.loads(files["machine.json"])["cores"] > 0
    assert json.loads(files["run/run.json"])["plan"] == "small"
    assert json.loads(files["run/state.json"])["state"] == "failed"
    status = json.loads(files["run/only/status.json"])
    assert (status["exit_code"], status["reason"].splitlines()[0]) == (69, "refused")
    log = files["run/only/log.txt"].splitlines()
    assert log[0] == "10:00:00 epoch finished epoch=3  loss=1.5"
    assert log[-1] == "the last line"
    assert "doctor.json" not in files
    assert "kubeflow: it was not asked, as the run is not of it" in files["README.txt"]


def test_a_cluster_that_does_not_answer_is_said_and_keeps_nothing_else_out(
    runs: Path, run: Run, secrets: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture
) -> None:
    place = ClusterRun(
        run="a1", pipeline="small", namespace="ours", server="", artifacts="s3://bucket/v2/small/a1"
    )
    place.write(run)
    run.write_record(run.record.model_copy(update={"state": "running"}))
    file = tmp_path / "bundle.zip"

    assert main(["doctor", "--bundle", str(file), "--run", run.id, "--json"]) == ExitCode.OK

    told = json.loads(capsys.readouterr().out)
    assert told["bundle"] == str(file)
    states = {one["check"]: one["state"] for one in told["findings"]}
    assert (states["packages"], states["cluster"], states["store"]) == ("ok", "failed", "skipped")
    files = contents(file)
    assert json.loads(files["doctor.json"]) == told["findings"]
    assert json.loads(files["cluster.json"])["namespace"] == "ours"
    assert "- cluster: cannot ask http://127.0.0.1:1 for its version" in files["README.txt"]
    assert f"run {run.id}: its states are those that were last heard of" in files["README.txt"]
    assert "run/only/status.json" in files
    assert_no_secret(files)


@contextmanager
def cluster_api(answers: Mapping[str, Any], home: Path) -> Iterator[str]:
    """Answer like the API of a cluster, and like its pipeline server; give the URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = answers.get(self.path.partition("?")[0])
            body = answer if isinstance(answer, str) else json.dumps(answer or {"message": "none"})
            self.send_response(200 if answer else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body.encode())

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        config = home / "kubeconfig"
        config.write_text(config.read_text().replace("http://127.0.0.1:1", url))
        try:
            yield url
        finally:
            server.shutdown()


def test_a_submitted_run_brings_its_pods_logs_without_the_stores_secret(
    run: Run, secrets: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = ClusterRun(
        run="a1", pipeline="small", namespace="ours", server="", artifacts="s3://bucket/v2/small/a1"
    )
    place.write(run)
    run.write_record(run.record.model_copy(update={"state": "running"}))
    secrets.setenv("MOCO_S3_ENDPOINT", "http://127.0.0.1:1")
    secrets.setenv("MOCO_S3_RETRY_SECONDS", "0")
    key = base64.b64encode(PLANTED["stored"].encode()).decode()
    pod = {
        "metadata": {
            "name": "only-pod",
            "namespace": "ours",
            "creationTimestamp": "2026-01-01T10:00:00Z",
            "annotations": {NODE: "w(0).root(0).only(0).executor(0)"},
        },
        "status": {
            "phase": "Failed",
            "containerStatuses": [{"name": "main", "state": {"terminated": {"exitCode": 69}}}],
        },
    }
    log = "\n".join([*LOG[:-2], f"the store takes {PLANTED['stored']}", "said by the pod"])
    version = dict.fromkeys(
        ("gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"), "x"
    )
    answers = {
        "/version/": {"major": "1", "minor": "30", "gitVersion": "v1.30.1", **version},
        "/apis/authentication.k8s.io/v1/selfsubjectreviews": {
            "status": {"userInfo": {"username": "me"}}
        },
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews": {
            "spec": {},
            "status": {"allowed": True},
        },
        "/api/v1/namespaces/ours": {"metadata": {"name": "ours"}},
        "/api/v1/namespaces/ours/secrets/mlpipeline-minio-artifact": {
            "data": {"accesskey": key, "secretkey": key}
        },
        "/api/v1/namespaces/ours/pods": {"items": [pod]},
        "/api/v1/namespaces/ours/pods/only-pod/log": log,
        "/apis/v2beta1/healthz": {"tag_name": "2.17.0"},
        "/apis/v2beta1/runs/a1": {"run_id": "a1", "state": "FAILED"},
    }
    file = tmp_path / "bundle.zip"
    with cluster_api(answers, tmp_path / "home") as url:
        arguments = ["--cluster", f"server={url}", "--cluster", "service_account=default"]
        named = ["--bundle", str(file), "--run", run.id, "--no-pods"]
        assert main(["doctor", *named, *arguments]) == ExitCode.OK

    files = contents(file)
    assert_no_secret(files)
    assert files["run/only/log.txt"].splitlines()[-2:] == [
        "the store takes [redacted]",
        "said by the pod",
    ]
    assert json.loads(files["run/run.json"])["state"] == "failed"
    words = [(one["check"], one["words"]) for one in json.loads(files["doctor.json"])]
    assert any(check == "cluster" and "Kubernetes 1.30.1" in said for check, said in words)
    assert any(check == "server" and "Pipelines 2.17.0" in said for check, said in words)


def test_a_damaged_run_goes_in_as_it_is(run: Run, tmp_path: Path) -> None:
    (run.folder / "run.json").write_text('{"id": "half')
    (run.folder / "plan.json").unlink()
    file = tmp_path / "bundle.zip"

    assert main(["doctor", "--bundle", str(file), "--run", run.id]) == ExitCode.OK

    files = contents(file)
    assert files["run/run.json"] == '{"id": "half\n'
    assert "run.json is not JSON" in files["README.txt"]
    assert "plan.json: No such file" in files["README.txt"]
    assert "the last line" in files["run/only/log.txt"]


def test_a_long_log_is_cut_at_its_beginning_and_read_for_keys_before(run: Run) -> None:
    bundle = Bundle(Redactor())
    key = ["-----BEGIN PRIVATE KEY-----", *[PLANTED["private"]] * 40]
    more = [f"line {index}" for index in range(LINES - 20)]
    bundle.add_run(run, lambda step: list(map(parse_line, [*key, "-----END KEY-----", *more])))

    lines = bundle.files["run/only/log.txt"].splitlines()
    assert len(lines) <= LINES
    assert lines[-1] == more[-1]
    assert_no_secret(bundle.files)


def test_texts_without_credentials_stay_as_they_are() -> None:
    for text in (
        "see https://github.com/facebookresearch/moco and s3://bucket/a/b@c",
        "registry.example/me/moco-transfer-torch@sha256:0123456789abcdef",
        f"loss=1.25  epoch=3  lr=0.03 at {datetime(2026, 1, 1, tzinfo=UTC)}",
        "namespace kubeflow has no secret mlpipeline-minio-artifact",
        "four basic blocks in a bearer of keys",
        '{"key": "5f2a", "state_key": "77aa"}',
    ):
        assert Redactor(environment={}).text(text) == text


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_asked(
    tmp_path: Path, capsys: Capture
) -> None:
    there = tmp_path / "there.zip"
    there.write_text("mine")
    for path, code, words in (
        (tmp_path, ExitCode.USAGE, f"is a folder; name a file in it: {tmp_path}/moco-bundle.zip"),
        (tmp_path / "bundle", ExitCode.USAGE, "call it bundle.zip"),
        (there, ExitCode.NO_PERMISSION, "exists already; name another file"),
        (tmp_path / "no" / "a.zip", ExitCode.NO_PERMISSION, f"there is no folder {tmp_path}/no"),
        (there / "a.zip", ExitCode.NO_PERMISSION, "Not a directory"),
        (tmp_path / f"{'x' * 300}.zip", ExitCode.NO_PERMISSION, "File name too long"),
    ):
        assert main(["doctor", "--bundle", str(path)]) == code
        shown = capsys.readouterr()
        assert words in shown.err
        assert (shown.out, "Traceback" in shown.err) == ("", False)
    assert there.read_text() == "mine"
    assert main(["doctor", "--run", "small"]) == ExitCode.USAGE
    assert "--bundle FILE.zip" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(NotWritableError, match="choose a place"), reserved(tmp_path / "a.zip"):
        pass


def test_nothing_is_left_where_the_disk_is_full_or_the_work_fails(small_disk: Path) -> None:
    file = small_disk / "a.zip"
    bundle = Bundle(Redactor(), {"noise.txt": os.urandom(3_000_000).hex()})

    with pytest.raises(DiskFullError, match="no space left"), reserved(file) as out:
        bundle.write(out)
    assert not file.exists()
    with pytest.raises(UsageError), reserved(file):
        raise UsageError("something else")
    assert not file.exists()
