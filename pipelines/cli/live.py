"""The live view on a terminal: a line for each running step, the ended ones above."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipelines.runs.logs import Event, measured, show_event
from pipelines.runs.progress import MARKS, Tally, failure_lines, outcome, time_left
from pipelines.runs.record import StepStatus
from pipelines.words import duration

STYLES = {
    "finished": "green",
    "reused": "cyan",
    "failed": "bold red",
    "skipped": "yellow",
    "interrupted": "yellow",
}
REFRESH = 0.2  # seconds


@dataclass
class _Line:
    started: float = field(default_factory=time.monotonic)
    event: Event = field(default_factory=dict)
    words: str = "starting"
    why: str = ""
    """What a step waits for that does not run yet."""


class LiveDisplay:
    """Running steps with bar, figures and time at the foot; every ended step a line above."""

    def __init__(self, stream: TextIO) -> None:
        self.console = Console(file=stream, highlight=False)
        self.live = Live(console=self.console, auto_refresh=False, transient=True)
        self.tally = Tally()
        self.lines: dict[str, _Line] = {}
        self.width = 0
        self.drawn = 0.0
        self.warned: set[tuple[str, str]] = set()

    def start(self, title: str, steps: Sequence[str] = (), since: datetime | None = None) -> None:
        """Say what it is, and take the foot of the terminal."""
        self.width = max(map(len, steps), default=0)
        self.tally = Tally.begun(steps, since)
        self.console.print(Text(title, "bold"))
        self.live.start()

    def busy(self, name: str, words: str) -> None:
        """Give it a line at the foot."""
        self.lines[name] = _Line(words=words)

    def changed(self, step: str, status: StepStatus) -> None:
        """Move a step from the foot to the lines above when it has ended."""
        self.tally.states[step] = status.state
        if status.state == "running":
            self.lines[step] = _Line(time.monotonic() - (status.seconds or 0.0))
            return
        if status.state == "waiting" and status.reason:
            self.lines[step] = _Line(words="waits", why=status.reason)
            return
        self.lines.pop(step, None)
        if status.state == "waiting":
            return
        line = outcome(step, status, self.width)
        self._draw()
        self.live.console.print(Text(line, STYLES.get(status.state, "")))
        if status.state == "failed":
            self.live.console.print(Text(failure_lines(status), "red"))

    def progressed(self, step: str, event: Event) -> None:
        """Keep the newest progress of a step, or its newest words."""
        line = self.lines.get(step)
        if line is None:
            return
        if event.get("level") == "warning" and (step, event["event"]) not in self.warned:
            self.warned.add((step, event["event"]))
            self.note(f"{step}: {show_event(event)}")
        if event["event"] == "progress":
            line.event = event
        elif event.get("level") in ("info", "warning"):
            line.words = str(event["event"])

    def note(self, words: str) -> None:
        """Say it above the running steps."""
        self.live.console.print(Text(words, "yellow"))

    def tick(self) -> None:
        """Draw five times a second."""
        if time.monotonic() - self.drawn >= REFRESH:
            self._draw()

    def stop(self) -> None:
        """Give the foot of the terminal back, and sum up."""
        self.live.stop()
        if self.tally.total:
            self.console.print(str(self.tally))

    def _draw(self) -> None:
        self.drawn = time.monotonic()
        table = Table.grid(padding=(0, 1), expand=False)
        table.add_column(no_wrap=True, min_width=self.width + 2)
        table.add_column(width=24)
        table.add_column(no_wrap=True, min_width=12, justify="right")
        table.add_column(no_wrap=True, overflow="ellipsis")
        for step, line in self.lines.items():
            mark = MARKS["waiting" if line.why else "running"]
            table.add_row(f"{mark} {step}", *_progress(line))
        foot = [Text(str(self.tally), "dim")] if self.tally.total else []
        self.live.update(Group(table, *foot), refresh=True)


def _progress(line: _Line) -> tuple[ProgressBar | Text, str, str]:
    if line.why:
        return Text(line.words), "", line.why
    done, total = line.event.get("done"), line.event.get("total")
    bar: ProgressBar | Text = Text(line.words[:24])
    if isinstance(done, (int, float)) and isinstance(total, (int, float)) and total > 0:
        bar = ProgressBar(total=total, completed=done, width=24)
    spent, left = duration(time.monotonic() - line.started), time_left(line.event)
    return bar, f"{spent}, {left} left" if left else spent, measured(line.event)
