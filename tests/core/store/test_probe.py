"""What the probe of a store says and exits with; no secret is in it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from components.core.errors import ExitCode
from components.core.store import open_store
from components.core.store.probe import main
from tests.servers.minio import MinioServer

SECRET = "canary-9d1f6f6c2b"


def probed(url: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Probe a store; return exit code and words."""
    code = main([url])
    out = capsys.readouterr().out
    answer = json.loads(out)
    assert answer["ok"] == (code == 0)
    assert out.count("\n") == 1
    return code, answer["words"]


def test_a_usable_store_is_left_as_it_was(
    bucket_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, words = probed(f"{bucket_url}/v2/artifacts", capsys)

    assert code == ExitCode.OK
    assert words == f"{bucket_url}/v2/artifacts: written, read and deleted"
    assert open_store(bucket_url).list() == []


def test_a_folder_is_a_store_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert probed(str(tmp_path), capsys)[0] == ExitCode.OK
    assert not list(tmp_path.iterdir())


def test_a_missing_bucket_is_named(bucket_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, words = probed("s3://nobody-made-this-one/root", capsys)

    assert code == ExitCode.LOST_STORE
    assert "NoSuchBucket" in words
    assert "nobody-made-this-one" in words
    assert "create the bucket" in words


def test_a_bucket_that_may_only_be_read_is_told_from_a_closed_one(
    bucket_url: str,
    own_server: MinioServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bucket = bucket_url.removeprefix("s3://")
    reader = own_server.add_user(bucket, ["s3:ListBucket", "s3:GetBucketLocation", "s3:GetObject"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", reader[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", reader[1])

    code, words = probed(bucket_url, capsys)

    assert code == ExitCode.NO_PERMISSION
    assert words.startswith(f"{bucket_url} may be read, but not written: cannot write")
    assert reader[0] in words
    assert reader[1] not in words


def test_wrong_credentials_are_named_without_the_secret(
    bucket_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)

    code, words = probed(bucket_url, capsys)

    assert code == ExitCode.LOST_STORE
    assert "SignatureDoesNotMatch" in words
    assert SECRET not in words


def test_a_store_that_is_away_is_named_in_seconds(minio_server: MinioServer) -> None:
    closed = {**minio_server.environment(), "MOCO_S3_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-m", "components.core.store.probe", "minio://bucket/root"],
        env={**closed, "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[3],
    )

    assert done.returncode == ExitCode.LOST_STORE
    assert "http://127.0.0.1:9" in json.loads(done.stdout)["words"]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [[], ["a", "b"]])
def test_the_command_line_is_one_url(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == ExitCode.USAGE
    assert "URL" in json.loads(capsys.readouterr().out)["words"]
