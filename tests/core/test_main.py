"""A stage's command line, run for real."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.core.errors import ExitCode
from components.core.manifest import UNFINISHED, verify
from components.core.metrics import Metrics, write_metrics
from tests.core.test_manifest import artifact
from tests.core.test_ports import outputs, tiny

TABLE = {
    "key": "t",
    "title": "T",
    "section": "S",
    "source": "appendix",
    "rows": [{"key": "r", "name": "R"}],
    "columns": [{"key": "c", "name": "C"}],
    "metrics": [{"key": "top1", "name": "top-1"}],
    "command": "moco run t",
}


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    folder = tmp_path / "metrics"
    folder.mkdir()
    write_metrics(folder, Metrics(values={"top1": 61.8}))
    artifact(folder, {}, stage="classification.linear", port="metrics", kind="Metrics")
    return folder


def report(tmp_path: Path, *more: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "components.report", "--config", json.dumps({"tables": [TABLE]})]
    argv += ["--output.report", str(tmp_path / "report"), "--output.html", str(tmp_path / "r.html")]
    return subprocess.run(
        [*argv, *more],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_outputs_carry_config_code_and_the_lineage_of_inputs(tmp_path: Path, metrics: Path) -> None:
    output_file = tmp_path / "kfp" / "executor_output.json"
    executor_input = {"outputs": {"outputFile": str(output_file), "artifacts": {}}}
    result = report(
        tmp_path,
        f"--input.metrics.t__r__c__0={metrics}",
        "--executor-input",
        json.dumps(executor_input),
    )
    assert result.returncode == 0, result.stderr
    manifest = verify(tmp_path / "report")
    assert manifest.stage == "report"
    assert manifest.config["tables"]
    assert manifest.code.digest
    assert manifest.inputs["metrics.t__r__c__0"].digest == verify(metrics).digest
    assert not (tmp_path / "report" / UNFINISHED).exists()
    assert (tmp_path / "r.html").read_text() == (tmp_path / "report/index.html").read_text()


def test_an_artifact_that_was_tampered_with_is_refused(tmp_path: Path, metrics: Path) -> None:
    (metrics / "metrics.json").write_text('{"values": {"top1": 99.9}}')
    result = report(tmp_path, f"--input.metrics.t__r__c__0={metrics}")
    assert result.returncode == ExitCode.BAD_DATA
    assert "metrics.json has" in result.stderr
    assert not (tmp_path / "report/manifest.json").exists()


def test_an_artifact_of_the_wrong_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    artifact(tmp_path / "model", {"w": "1"})
    result = report(tmp_path, "--input.metrics.k", str(tmp_path / "model"))
    assert result.returncode == ExitCode.BAD_DATA
    assert "is a Model made by pretrain; a Metrics is needed" in result.stderr


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    result = report(tmp_path, "--input.metrics.k", str(tmp_path / "nowhere"))
    assert result.returncode == ExitCode.BAD_DATA
    assert "nowhere does not exist" in result.stderr


def test_an_output_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report/thesis.tex").write_text("years of work")
    result = report(tmp_path)
    assert result.returncode == ExitCode.NO_PERMISSION
    assert "already holds other files" in result.stderr
    assert (tmp_path / "report/thesis.tex").read_text() == "years of work"


def test_what_an_unfinished_attempt_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / UNFINISHED).touch()
    (tmp_path / "report/half.html").write_text("<ht")
    assert report(tmp_path).returncode == 0
    assert "half.html" not in verify(tmp_path / "report").files


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_has_its_own_code_and_leaves_no_artifact(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(small)],
        capture_output=True,
        check=False,
    )
    if mount.returncode:
        pytest.skip("this machine does not let root mount a file system")
    try:
        result = report(small)
        assert result.returncode == ExitCode.DISK_FULL, result.stderr
        assert "no space left" in result.stderr
        assert not (small / "report/manifest.json").exists()
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_read_only_folder_has_its_own_code(tmp_path: Path) -> None:
    result = report(Path("/proc/nothing"))
    assert result.returncode == ExitCode.NO_PERMISSION
    assert "/proc/nothing" in result.stderr
    assert "Traceback" not in result.stderr


def test_secrets_of_the_environment_are_in_no_output(tmp_path: Path) -> None:
    canary = "canary-5f2e9c81"
    result = report(
        tmp_path, "--input.metrics.k", f"/nowhere/{canary}", AWS_SECRET_ACCESS_KEY=canary
    )
    assert canary not in result.stdout + result.stderr
    assert "[redacted]" in result.stderr


def test_work_that_can_be_resumed_knows_its_data_by_content_not_by_place(tmp_path: Path) -> None:
    contents = []
    for place, text in (("here", "x"), ("there", "x"), ("changed", "longer")):
        folder = tmp_path / place
        (folder / "data" / "deep").mkdir(parents=True)
        (folder / "data" / "deep" / "text").write_text("a")
        (folder / "data" / "deep" / "1.png").write_text(text)
        done = tiny("--mount.data", str(folder / "data"), *outputs(str(folder)))
        assert done.returncode == 0, done.stderr
        contents.append(verify(folder / "weights").facts["data"])

    assert contents[0] == contents[1] != contents[2]


@pytest.mark.parametrize(
    ("option", "url", "words"),
    [
        ("--state", "s3:/bucket/state", "two slashes, s3://bucket/state"),
        ("--output.page", "s3:/bucket/page.html", "two slashes, s3://bucket/page.html"),
        ("--input.model", "https://host/model.pth", "fetch it, and give its path"),
        ("--mount.data", "s3://bucket/data", "a path of this machine is needed"),
        ("--mount.data", "gs://bucket/data", "names no store"),
    ],
)
def test_a_url_that_leads_nowhere_is_refused_before_the_work(
    tmp_path: Path, option: str, url: str, words: str
) -> None:
    given = dict(zip(*[iter(outputs(str(tmp_path / "out")))] * 2, strict=True)) | {option: url}
    started = tmp_path / "started"

    done = tiny(*(word for pair in given.items() for word in pair), started=str(started))

    assert done.returncode == ExitCode.USAGE, done.stderr
    assert url in done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not started.exists()


def test_help_needs_no_torch_and_is_on_stdout() -> None:
    command = [sys.executable, "-m", "components.pretrain", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert "key_momentum" in result.stdout
