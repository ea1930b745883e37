"""What is told and shown of a run as it goes: marks, counts, lines of steps that have ended."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from pipelines.runs.logs import Event, measured
from pipelines.runs.record import DONE, StepStatus
from pipelines.words import duration, number, size

MARKS = {
    "finished": "✓",
    "reused": "=",
    "failed": "✗",
    "skipped": "-",
    "interrupted": "!",
    "running": "▸",
    "waiting": "·",
}


BYTES = "B"  # unit of progress that is shown as a size


class Display(Protocol):
    """What is told how something goes that takes its time: the steps of a run, a transfer."""

    def start(self, title: str, steps: Sequence[str] = (), since: datetime | None = None) -> None:
        """Begin.

        Args:
            title: What goes on, in words.
            steps: Names of the steps that will be told of.
            since: When it was begun, if that was not now.
        """

    def busy(self, name: str, words: str) -> None:
        """Take note of something that goes on and is no step; `progressed` tells how far it is."""

    def changed(self, step: str, status: StepStatus) -> None:
        """Take note that a step has another state."""

    def progressed(self, step: str, event: Event) -> None:
        """Take note of a line in a step's log."""

    def note(self, words: str) -> None:
        """Tell something about the run as a whole."""

    def tick(self) -> None:
        """Draw, if it is time to."""

    def stop(self) -> None:
        """End."""


@dataclass
class Tally:
    """Counts the steps of a run by state."""

    total: int = 0
    states: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def begun(cls, steps: Sequence[str], since: datetime | None = None) -> "Tally":
        """Begin to count steps, and the time from now on or since something was begun."""
        tally = cls(len(steps))
        if since:
            tally.started -= (datetime.now(UTC) - since).total_seconds()
        return tally

    def count(self, *states: str) -> int:
        """Return how many steps are in one of some states."""
        return sum(state in states for state in self.states.values())

    def __str__(self) -> str:
        parts = [f"{self.count(*DONE)} of {number(self.total, 'step')} done"]
        for words, states in (
            ("running", ["running"]),
            ("failed", ["failed"]),
            ("skipped", ["skipped"]),
            ("interrupted", ["interrupted"]),
        ):
            if count := self.count(*states):
                parts.append(f"{count} {words}")
        parts.append(duration(time.monotonic() - self.started))
        return ", ".join(parts)


def outcome(step: str, status: StepStatus, width: int) -> str:
    """Return the line of a step that has come to an end."""
    line = f"{MARKS[status.state]} {step:<{width}}  {status.state}"
    if status.state == "reused":
        return f"{line} {reused_from(status)}"
    if status.state == "finished":
        line += f" in {duration(status.seconds)}"
        if status.left_out:
            line += f", without {number(len(status.left_out), 'input')} that failed"
        return line
    if status.state == "skipped":
        return f"{line}: {status.reason}"
    if status.state == "failed":
        line += f" with exit code {status.exit_code} after {duration(status.seconds)}"
    return line


def reused_from(status: StepStatus) -> str:
    """Say where the artifacts of a reused step come from."""
    return f"from {status.origin}" if status.origin else status.reason


def failure_lines(status: StepStatus) -> str:
    """Return the last lines of a failed step, indented."""
    return "\n".join(f"    {line}" for line in status.reason.splitlines())


def bar_text(event: Event) -> str:
    """Return progress in words: `120/640 steps (19 %)  loss=1.93`."""
    done, total = event.get("done"), event.get("total")
    parts = []
    if isinstance(done, (int, float)) and isinstance(total, (int, float)) and total > 0:
        unit = event.get("unit", "")
        far = f"{size(done)} of {size(total)}" if unit == BYTES else f"{done:g}/{total:g} {unit}"
        parts.append(f"{far} ({100 * done / total:.0f} %)".replace("  ", " "))
        if left := time_left(event):
            parts.append(f"{left} left")
    parts.append(measured(event))
    return "  ".join(part for part in parts if part)


def time_left(event: Event) -> str:
    """Return how long a step takes from here on at its own rate; nothing if it has none."""
    done, total, rate = (event.get(name) for name in ("done", "total", "per_second"))
    numbers = (done, total, rate)
    if not all(isinstance(number, int | float) and number > 0 for number in numbers):
        return ""
    return duration((total - done) / rate)  # type: ignore[operator]
