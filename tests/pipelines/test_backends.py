"""A backend of one's own: a folder on Python's path, and every command knows its runs."""

import json
from pathlib import Path

import pytest

from pipelines.__main__ import main
from pipelines.backends import backend_names, open_backend
from pipelines.backends.base import Settings
from pipelines.runs.find import find_run

Capture = pytest.CaptureFixture[str]
SUBMIT = ["submit", "toys", "--scale", "digits", "--trials", "1", "--backend", "batch"]

pytestmark = pytest.mark.usefixtures("world")


def test_the_commands_know_the_runs_of_another_backend(
    runs: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert backend_names() == ["batch", "kubeflow", "local"]
    assert main(["doctor", "toys", "--backend", "batch"]) == 0
    assert "✓ shell: a shell" in capsys.readouterr().out

    assert main([*SUBMIT, "--watch"]) == 0
    shown = capsys.readouterr().out
    run = find_run("toys", runs)
    assert f"moco status {run.id}" in shown
    assert "✓ measure_random_0" in shown

    assert main(["status", run.id, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["backend"], facts["state"]) == ("batch", "finished")
    assert main(["status"]) == 0
    assert f"{run.id}  digits  finished  " in capsys.readouterr().out
    assert main(["logs", run.id, "make_random"]) == 0
    assert capsys.readouterr().out
    assert main(["explain", run.id, "toys/random/short"]) == 0
    assert "toy.metrics" in capsys.readouterr().out
    assert main(["pull", run.id, "--output", str(tmp_path / "bundle")]) == 0
    assert (tmp_path / "bundle" / run.id / "measure_random_0/metrics/manifest.json").exists()
    capsys.readouterr()
    assert main(["report", run.id]) == 0


def test_a_run_of_a_backend_that_is_not_here_is_told(runs: Path, capsys: Capture) -> None:
    assert main([*SUBMIT]) == 0
    run = find_run("toys", runs)
    open_backend("batch", Settings()).cancel(run)
    run.write_record(run.record.model_copy(update={"backend": "slurm"}))
    capsys.readouterr()

    assert main(["status", run.id]) == 64
    said = capsys.readouterr().err
    assert "no backend is called 'slurm'; there are batch, kubeflow, local" in said
    assert main(["status"]) == 0  # the others of a list are shown all the same
    listed, said = capsys.readouterr()
    assert f"{run.id}  digits  running" in listed and "slurm" in listed
    assert "no backend is called 'slurm'" in said


@pytest.mark.parametrize(
    ("option", "code", "told"),
    [
        ([], 0, "✓ packages: all that its steps need is installed"),
        (["--data", "coco=/nowhere"], 64, "✗ data sets: --data coco: the plan mounts no such"),
    ],
)
def test_this_machine_is_checked_like_a_cluster(
    runs: Path, capsys: Capture, option: list[str], code: int, told: str
) -> None:
    asked = ["doctor", "toys", "--scale", "digits", "--backend", "local"]
    assert main([*asked, *option]) == code
    assert told in capsys.readouterr().out
