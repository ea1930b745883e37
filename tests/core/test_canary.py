"""A secret that is planted in a stage's environment is found in nothing that the stage leaves."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import ExitCode
from tests.core.test_ports import outputs, tiny
from tests.servers.minio import MinioServer

CANARY = "canary/9c41+secret=access-key"
KEY = "AWS_SECRET_ACCESS_KEY"
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def planted(bucket_url: str, own_server: MinioServer, tmp_path: Path) -> dict[str, str]:
    """The environment of a user whose secret the canary is, with all that makes a stage talk."""
    user, _ = own_server.add_user(bucket_url.removeprefix("s3://"), ["s3:*"], CANARY)
    (tmp_path / "scratch").mkdir()
    return {
        "AWS_ACCESS_KEY_ID": user,
        KEY: CANARY,
        "MOCO_TRACEBACK": "1",
        "MOCO_LOG_LEVEL": "debug",
        "MOCO_S3_RETRY_SECONDS": "1",
        "TMPDIR": str(tmp_path / "scratch"),
    }


def left_in_bucket(server: MinioServer, bucket: str) -> str:
    """Everything that a bucket holds: names, metadata and contents."""
    client, held = server.client(), StringIO()
    for entry in client.list_objects(bucket, recursive=True):
        name = str(entry.object_name)
        with client.get_object(bucket, name) as body:
            print(name, client.stat_object(bucket, name).metadata, body.data, file=held)
    return held.getvalue()


def left_in_folder(folder: Path) -> str:
    return "".join(f"{p} {p.read_bytes()!r}" for p in folder.rglob("*") if p.is_file())


def test_a_planted_secret_is_nowhere(
    bucket_url: str, planted: dict[str, str], own_server: MinioServer, tmp_path: Path
) -> None:
    run, defect = f"{bucket_url}/run", {"defect": True}
    attempts: list[tuple[ExitCode, list[str], dict[str, str], dict[str, Any]]] = [
        (ExitCode.OK, outputs(run), {}, {"text": "a"}),
        (ExitCode.OK, outputs(str(tmp_path / "local")), {}, {"text": "a"}),
        (ExitCode.NO_PERMISSION, outputs(run), {}, {}),
        (ExitCode.FAILURE, outputs(f"{bucket_url}/defect"), {"MOCO_LOG": "human"}, defect),
        (ExitCode.FAILURE, outputs(str(tmp_path / "defect")), {"MOCO_LOG": "json"}, defect),
        (ExitCode.BAD_DATA, ["--input.model", f"{bucket_url}/no", *outputs(f"{run}2")], {}, {}),
        (ExitCode.BAD_DATA, ["--input.model", f"/no/{CANARY}", *outputs(f"{run}2")], {}, {}),
        (ExitCode.LOST_STORE, outputs(run), {"MOCO_S3_ENDPOINT": NOWHERE, "MOCO_LOG": "human"}, {}),
        (ExitCode.LOST_STORE, outputs(run), {"MOCO_S3_ENDPOINT": f"http://u:{CANARY}@h"}, {}),
        (ExitCode.LOST_STORE, outputs(run), {"AWS_ACCESS_KEY_ID": "nobody"}, {}),
        (ExitCode.LOST_STORE, outputs(run), {"AWS_SESSION_TOKEN": CANARY}, {}),
        (ExitCode.NO_PERMISSION, outputs(f"{bucket_url}-other/run"), {}, {}),
    ]
    said = StringIO()

    for code, arguments, changes, config in attempts:
        done = tiny(*arguments, environment={**planted, **changes}, **config)
        assert done.returncode == code, done.stderr.replace(CANARY, "[the canary]")
        print(done.stdout, done.stderr, file=said)

    left = left_in_bucket(own_server, bucket_url.removeprefix("s3://"))
    assert "run/weights/manifest.json" in left
    everything = said.getvalue() + left + left_in_folder(tmp_path)
    assert "Traceback" in everything
    assert "[redacted]" in everything
    for form_of_it in (CANARY, CANARY.replace("/", "%2F").replace("+", "%2B").replace("=", "%3D")):
        assert form_of_it not in everything
