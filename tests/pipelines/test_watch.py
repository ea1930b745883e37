"""Watching a run that somebody else executes."""

import io
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import ExitCode
from components.core.stage import Stage
from pipelines.__main__ import main
from pipelines.cli.display import PlainDisplay
from pipelines.cli.live import LiveDisplay
from pipelines.plan import Plan
from pipelines.runs.find import find_run
from pipelines.runs.folder import Run, create_run
from pipelines.runs.progress import Display
from pipelines.runs.record import StepStatus

pytestmark = pytest.mark.usefixtures("world")

Capture = pytest.CaptureFixture[str]
RUN = ["run", "toys", "--scale", "digits", "--trials", "1", "--rows", "random"]


@pytest.fixture
def run(toy: Stage[Any], runs: Path) -> Run:
    plan = Plan("watched", "digits")
    plan.add(toy, "one", toy.config())
    run = create_run(runs, plan)
    begun = run.record.created - timedelta(hours=2)
    run.write_record(run.record.model_copy(update={"created": begun}))
    return run


def show(display: Display, run: Run) -> None:
    """Tell a display of a step that waits, runs since a while, and was taken from a cache."""
    display.start(f"run {run.id}: 1 step", ["one"], run.record.created)
    display.changed("one", StepStatus(reason="no node can take it"))
    display.tick()
    since = datetime.now(UTC) - timedelta(minutes=5)
    display.changed("one", StepStatus(state="running", attempt=2, started=since))
    display.tick()
    display.changed("one", StepStatus(state="reused", reason="from Kubeflow's cache"))
    display.stop()


def test_plain_lines_tell_what_is_waited_for(run: Run) -> None:
    stream = io.StringIO()
    show(PlainDisplay(stream), run)

    lines = stream.getvalue().splitlines()
    assert lines[0] == f"run {run.id}: 1 step"
    assert lines[1] == "· one  waits: no node can take it"
    assert lines[2] == "▸ one  started, attempt 2"
    assert lines[3].startswith(
        "= one  reused from Kubeflow's cache   [1 of 1 step done, 2 h 00 min"
    )


def test_a_terminal_shows_what_is_waited_for_and_since_when_a_step_runs(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("pipelines.cli.live.REFRESH", 0.0)
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    show(LiveDisplay(stream), run)

    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert re.search(r"· one\s+waits\s+no node can take it", text)
    assert re.search(r"▸ one\s+starting\s+5 min 0\d s", text)
    assert "= one  reused from Kubeflow's cache" in text


def test_a_watched_run_gives_its_exit_code(runs: Path, capsys: Capture) -> None:
    assert main(RUN) == 0
    capsys.readouterr()
    assert main(["status", "toys", "--watch"]) == 0
    assert "✓ report" in capsys.readouterr().out

    assert main([*RUN, "--set", "measure_random_0.fails=9"]) == ExitCode.BAD_DATA
    capsys.readouterr()
    assert main(["status", "toys", "--watch"]) == ExitCode.BAD_DATA
    assert "image 7.jpg is truncated; remove it" in capsys.readouterr().out

    run = find_run("toys", runs)
    run.write_record(run.record.model_copy(update={"state": "interrupted"}))
    assert main(["status", "toys", "--watch"]) == ExitCode.INTERRUPTED


def test_only_one_run_can_be_watched(runs: Path, capsys: Capture) -> None:
    assert main(["status", "--watch"]) == ExitCode.USAGE
    assert "name it" in capsys.readouterr().err
