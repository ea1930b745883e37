"""Shows a run as it goes: live lines on a terminal, occasional plain ones elsewhere."""

import sys
import time
from typing import TextIO

from pipelines.backends.live import LiveDisplay
from pipelines.backends.machine import Machine
from pipelines.backends.progress import MARKS, Display, Tally, bar_text, failure_lines, outcome
from pipelines.logs import Event
from pipelines.runs import Run, StepStatus
from pipelines.words import number

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

    def start(self, run: Run, machine: Machine | None = None) -> None:
        """Say which run it is."""
        steps = run.record.steps
        self.width = max(map(len, steps), default=0)
        self.tally = Tally.of(run, machine)
        line = f"run {run.id}: {number(len(steps), 'step')}"
        if machine:
            line += f", {machine.jobs} at a time" if machine.jobs > 1 else ", one at a time"
            line += f", {number(len(machine.gpus), 'GPU')}" if machine.gpus else ""
        self._say(line)

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
        """Say it now and then."""
        now = time.monotonic()
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
        self._say(str(self.tally))

    def _say(self, line: str) -> None:
        print(line, file=self.stream, flush=True)
