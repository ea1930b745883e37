"""What a run shows while it goes, on a terminal and in a log of a CI."""

import io
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from components.core.stage import Stage
from pipelines.backends.local.machine import Machine
from pipelines.cli.display import PlainDisplay, display_for
from pipelines.cli.live import LiveDisplay
from pipelines.plan import Plan
from pipelines.runs.folder import Run, create_run
from pipelines.runs.logs import LogFollower, last_lines, show_event
from pipelines.runs.progress import Display, bar_text, time_left
from pipelines.runs.record import StepStatus

pytestmark = pytest.mark.usefixtures("world")
START = datetime(2026, 1, 1, tzinfo=UTC)
FAILED = StepStatus(
    state="failed", exit_code=65, reason="it broke", started=START, ended=START + timedelta(65)
)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(toy: Stage[Any], runs: Path) -> Run:
    plan = Plan("shown", "digits")
    for seed, name in enumerate(("one", "two", "three")):
        plan.add(toy, name, toy.config(seed=seed))
    return create_run(runs, plan)


def show(display: Display, run: Run) -> None:
    """Tell a display of a run in which one step trains and another fails."""
    steps = run.record.steps
    display.start(f"run {run.id}: 3 steps, {Machine(2, (), 2).words()}", steps)
    display.changed("one", StepStatus(state="running", attempt=1))
    event = {"event": "progress", "done": 120, "total": 640, "unit": "steps", "loss": 1.93}
    display.progressed("one", event)
    display.changed("two", StepStatus(state="reused", origin="earlier/two"))
    display.changed("three", FAILED)
    display.tick()
    display.stop()


def test_a_stream_that_is_no_terminal_gets_plain_lines(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("pipelines.cli.display.EVERY", 0.0)
    show(display_for(stream), run)

    lines = stream.getvalue().splitlines()
    assert lines[0] == f"run {run.id}: 3 steps, 2 at a time, 1 thread each"
    assert "one    120/640 steps (19 %)  loss=1.93" in lines[2]
    assert lines[3].startswith("= two    reused from earlier/two   [1 of 3 steps done, 1 running")
    assert "three  failed with exit code 65 after 1560 h 00 min" in lines[4]
    assert lines[5] == "    it broke"
    assert "\x1b" not in stream.getvalue()


def test_plain_lines_about_progress_are_rare(run: Run) -> None:
    stream = io.StringIO()
    show(PlainDisplay(stream), run)

    assert "120/640" not in stream.getvalue()


def test_a_terminal_shows_bars_and_figures_of_what_runs(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    display = display_for(stream)
    assert isinstance(display, LiveDisplay)
    monkeypatch.setattr("pipelines.cli.live.REFRESH", 0.0)
    show(display, run)

    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert re.search(r"▸ one\s+━+[╸╺ ━]+\s+0\.0 s\s+loss=1\.93", text)
    assert "= two    reused from earlier/two" in text
    assert "it broke" in text


@pytest.mark.parametrize("terminal", [False, True])
def test_what_a_step_warns_of_is_shown_once(
    run: Run, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal() if terminal else io.StringIO()
    display = display_for(stream)
    display.start("a run", run.record.steps)
    display.changed("one", StepStatus(state="running", attempt=1))
    for _ in range(2):
        warning = {"event": "the rate fell by half", "level": "warning", "per_second": 3.1}
        display.progressed("one", warning)
    display.stop()
    assert stream.getvalue().count("the rate fell by half per_second=3.1") == 1


def test_progress_says_how_long_it_takes_from_here_on() -> None:
    event = {"event": "progress", "done": 120, "total": 640, "unit": "steps", "per_second": 4.0}
    assert bar_text(event) == "120/640 steps (19 %)  2 min 10 s left  per_second=4"
    assert time_left({**event, "per_second": 0}) == ""
    assert time_left({**event, "done": 640}) == "0.0 s"


def test_a_log_is_followed_by_whole_lines(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    follower = LogFollower(log)
    assert list(follower.read()) == []
    log.write_text('{"event": "one", "loss": 0.25}\nTraceback')
    assert [event["event"] for event in follower.read()] == ["one"]
    with log.open("a") as file:
        file.write(" (most recent call last)\n")
    assert [event["event"] for event in follower.read()] == ["Traceback (most recent call last)"]


def test_a_log_line_is_written_for_people() -> None:
    event = {
        "event": "epoch finished",
        "level": "warning",
        "timestamp": "2026-01-01T12:03:04.5Z",
        "epoch": 3,
        "loss": 1.23456,
    }
    assert show_event(event) == "12:03:04 warning epoch finished epoch=3  loss=1.235"


def test_the_last_lines_are_those_of_the_last_attempt_without_progress(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(
        '{"event": "attempt started"}\n{"event": "old"}\n'
        '{"event": "attempt started"}\n{"event": "progress", "done": 1}\n{"event": "new"}\n'
    )
    assert last_lines(log) == "new"
    assert last_lines(tmp_path / "none") == ""
