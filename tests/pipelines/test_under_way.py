"""`moco report` of a run under way: the curves of what runs beside what is measured."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import ExitCode, StoreError, UsageError
from components.core.metrics import HISTORY, read_metrics
from components.core.stage import Stage
from components.report.results import read_report
from pipelines.__main__ import main
from pipelines.backends.local.backend import Local
from pipelines.plan import Plan
from pipelines.runs.folder import Run, create_run
from pipelines.runs.history import Row
from pipelines.runs.merge import report_plan
from pipelines.runs.record import StepStatus
from pipelines.runs.under_way import find_under_way

pytestmark = pytest.mark.usefixtures("world")

ROWS: list[Row] = [
    {"step": 50, "epoch": 0.5, "lr": 0.03, "loss": 6.5, "pretext_accuracy": 20.0},
    {"step": 100, "epoch": 1.0, "lr": 0.03, "loss": 5.5, "pretext_accuracy": 40.0},
    {"step": 100, "epoch": 1.0, "knn_accuracy": 31.0},
]


@pytest.fixture
def run(toy: Stage[Any], runs: Path) -> Run:
    """A run of which one step trains, one waits and one has failed."""
    plan = Plan("trained", "digits")
    for seed, name in enumerate(("training", "waiting", "broken")):
        plan.add(toy, name, toy.config(seed=seed))
    run = create_run(runs, plan, executed_here=False)  # else it would have ended without a word
    run.write_status("training", StepStatus(state="running"))
    run.write_status("broken", StepStatus(state="failed"))
    for name in ("training", "broken"):
        folder = run.artifact(name, "metrics")
        folder.mkdir(parents=True)
        lines = "".join(f"{json.dumps(row)}\n" for row in ROWS)
        (folder / HISTORY).write_text(f'{lines}{{"step": 150, "ep')
    return run


def nothing(run: Run, step: str) -> list[Row]:
    return []


def test_what_runs_is_drawn_up_to_its_last_whole_row(run: Run, tmp_path: Path) -> None:
    assert main(["report", run.id]) == ExitCode.OK
    assert main(["report", run.id, "-o", str(tmp_path / "report")]) == ExitCode.OK  # and again

    report = read_report(tmp_path / "report")
    assert [figure.title for figure in report.figures] == [f"{run.id}: training to step 100"] * 2
    curves = {curve.name: curve for figure in report.figures for curve in figure.curves}
    assert curves["loss"].points == ((0.5, 6.5), (1.0, 5.5))
    assert curves["loss"].best == (1.0, 5.5)
    assert curves["pretext accuracy"].best == (1.0, 40.0)
    assert curves["knn accuracy"].points == ((1.0, 31.0),)
    assert "training to step 100" in (tmp_path / "report/index.html").read_text("utf-8")


def test_where_its_files_are_not_at_hand_the_backend_is_asked(run: Run) -> None:
    (run.artifact("training", "metrics") / HISTORY).unlink()
    assert [*find_under_way(run, nothing)] == []
    (training,) = find_under_way(run, lambda run, step: ROWS[:1])
    written = Path(training.write().uri)
    assert read_metrics(written).values == {}  # so that it fills no cell
    assert read_metrics(written).curves["loss"] == [(0.5, 6.5)]


def test_a_backend_that_cannot_be_asked_is_said_and_the_rest_is_reported(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_: object, run: Run) -> None:
        raise StoreError("the store is away")

    monkeypatch.setattr(Local, "refresh", lost)
    assert main(["report", run.id]) == ExitCode.USAGE
    told = capsys.readouterr().err
    assert f"what runs of {run.id} is left out: the store is away" in told
    assert "nothing is measured" in told


def test_two_runs_of_one_step_are_told_apart(run: Run, toy: Stage[Any], runs: Path) -> None:
    other = create_run(runs, run.plan, executed_here=False)
    other.write_status("training", StepStatus(state="running"))
    both = [*find_under_way(run, nothing), *find_under_way(other, lambda run, step: ROWS)]
    plan = report_plan([run, other], both)
    assert len({port for port, _ in plan.step("report").sources()}) == 2


def test_without_any_there_is_nothing_to_report(run: Run) -> None:
    run.write_status("training", StepStatus(state="waiting"))
    with pytest.raises(UsageError, match="nothing is measured"):
        report_plan([run])
