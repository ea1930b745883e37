"""Shows what goes on: live lines on a terminal, occasional plain ones elsewhere."""

import sys
import time
from collections.abc import Sequence
from datetime import datetime
from typing import TextIO

from pipelines.cli.live import LiveDisplay
from pipelines.runs.logs import Event, show_event
from pipelines.runs.progress import MARKS, Display, Tally, bar_text, failure_lines, outcome
from pipelines.runs.record import StepStatus

EVERY = 30.0  # seconds between two plain lines of one step


def display_for(stream: TextIO) -> Display:
    """Return the display that suits a stream."""
    return LiveDisplay(stream) if stream.isatty() else PlainDisplay(stream)


class PlainDisplay:
    """One line when a step starts and ends, and one in a while between."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self.stream = stream
        self.tally = Tally()
        self.width = 0
        self.said: dict[str, float] = {}
        self.warned: set[tuple[str, str]] = set()

    def start(self, title: str, steps: Sequence[str] = (), since: datetime | None = None) -> None:
        """Say what it is."""
        self.width = max(map(len, steps), default=0)
        self.tally = Tally.begun(steps, since)
        self._say(title)

    def busy(self, name: str, words: str) -> None:
        """Do nothing yet: the title has said what it is."""
        self.said[name] = time.monotonic()

    def changed(self, step: str, status: StepStatus) -> None:
        """Say it."""
        self.tally.states[step] = status.state
        if status.state == "running":
            self.said[step] = time.monotonic()
            again = f", attempt {status.attempt}" if status.attempt > 1 else ""
            self._say(f"{MARKS['running']} {step:<{self.width}}  started{again}")
            return
        if status.state == "waiting":
            if status.reason:
                self._say(f"{MARKS['waiting']} {step:<{self.width}}  waits: {status.reason}")
            return
        self._say(outcome(step, status, self.width) + f"   [{self.tally}]")
        if status.state == "failed":
            self._say(failure_lines(status))

    def progressed(self, step: str, event: Event) -> None:
        """Say progress now and then, and what a step warns of, once."""
        now = time.monotonic()
        if event.get("level") == "warning" and (step, event["event"]) not in self.warned:
            self.warned.add((step, event["event"]))
            self._say(f"  {step:<{self.width}}  {show_event(event)}")
        if event["event"] == "progress" and now - self.said.get(step, now) >= EVERY:
            self.said[step] = now
            self._say(f"  {step:<{self.width}}  {bar_text(event)}")

    def note(self, words: str) -> None:
        """Say it."""
        self._say(words)

    def tick(self) -> None:
        """Do nothing: lines are said when there is something to say."""

    def stop(self) -> None:
        """Sum up."""
        if self.tally.total:
            self._say(str(self.tally))

    def _say(self, line: str) -> None:
        print(line, file=self.stream, flush=True)
