"""Reads the logs of steps: JSON lines, and whatever else a process wrote."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

Event = dict[str, Any]
PAUSE = 0.3  # seconds between two looks at this machine's own files

_QUIET = ("event", "level", "timestamp", "logger", "exception")


@dataclass(frozen=True)
class AttemptLog:
    """What is left of what an attempt at a step said.

    Attributes:
        number: From 1.
        read: Reads it; raises ClusterError or StoreError.
    """

    number: int
    read: Callable[[], Sequence[Event]]


@dataclass(frozen=True)
class StepLog:
    """What is left of what a step said.

    Attributes:
        attempts: The oldest first; one may hold the lines of several.
        note: Why that is not all, or not its own; empty if there is nothing to say.
    """

    attempts: Sequence[AttemptLog] = ()
    note: str = ""


class Follower(Protocol):
    """Follows what some steps of a run say.

    Attributes:
        ended: Steps that have nothing more to say: what is left can be read at once.
    """

    ended: Sequence[str]

    def read(self, rest: bool = False) -> Iterator[tuple[str, Event]]:
        """Yield what is new, waiting a while for it; with `rest`, all that there will ever be."""


def parse_line(line: str) -> Event:
    """Read one line of a log; a line that is not JSON is an event without a time."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    return event if isinstance(event, dict) and "event" in event else {"event": line}


def read_log(path: Path) -> list[Event]:
    """Read a whole log; none is an empty one."""
    return list(LogFollower(path).read(rest=True))


def last_attempt(events: list[Event]) -> list[Event]:
    """Return the events of the last attempt."""
    for index in range(len(events) - 1, -1, -1):
        if events[index]["event"] == ATTEMPT:
            return events[index + 1 :]
    return events


ATTEMPT = "attempt started"  # the runner's own line where an attempt begins


def last_lines(path: Path, count: int = 12) -> str:
    """Return the last lines of a step's last attempt for a person, progress left out."""
    return tail(last_attempt(read_log(path)), count)


def tail(events: Iterable[Event], count: int) -> str:
    """Return the last lines that events make for a person, progress left out."""
    shown = (show_event(event) for event in events if event["event"] != "progress")
    return "\n".join("\n".join(shown).splitlines()[-count:])


def show_event(event: Event) -> str:
    """Write an event as a line for people: time, level if it matters, words, figures."""
    time = str(event.get("timestamp", ""))[11:19]
    level = event.get("level", "info")
    figures = "  ".join(
        f"{name}={figure(value)}" for name, value in event.items() if name not in _QUIET
    )
    parts = [time, "" if level == "info" else str(level), str(event["event"]), figures]
    line = " ".join(part for part in parts if part)
    return f"{line}\n{_traceback(event['exception'])}" if event.get("exception") else line


def figure(value: Any) -> str:
    """Write a value compactly."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def measured(event: Mapping[str, Any]) -> str:
    """Return the figures of a progress event: `loss=1.93  top1=61.2`."""
    fixed = {*_QUIET, "done", "total", "unit"}
    return "  ".join(
        f"{name}={figure(value)}"
        for name, value in event.items()
        if name not in fixed and isinstance(value, (int, float)) and not isinstance(value, bool)
    )


@dataclass
class LogFollower:
    """Reads what a log has gained since it was last asked; a line only when it is whole."""

    path: Path
    offset: int = 0
    _rest: bytes = field(default=b"", repr=False)

    def read(self, rest: bool = False) -> Iterator[Event]:
        """Yield the new events; with `rest`, a last line without its end too."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read()
        except FileNotFoundError:
            return
        self.offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if rest and self._rest:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            if line.strip():
                yield parse_line(line.decode("utf-8", "replace"))


class FolderFollower:
    """Follows logs that are files of this machine, by step."""

    ended: Sequence[str] = ()

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self.logs = {step: LogFollower(path) for step, path in paths.items()}

    def news(self, rest: bool = False) -> Iterator[tuple[str, Event]]:
        """Yield what is new, without waiting."""
        for step, log in self.logs.items():
            for event in log.read(rest=rest):
                yield step, event

    def read(self, rest: bool = False) -> Iterator[tuple[str, Event]]:
        """Yield what is new, and wait a while for more."""
        yield from self.news(rest)
        if not rest:
            time.sleep(PAUSE)


def _traceback(exception: Any) -> str:
    """Write structlog's structured traceback in Python's way, shortened to where it broke."""
    if not isinstance(exception, list):
        return str(exception)
    lines = []
    for part in exception:
        for frame in part.get("frames", [])[-3:]:
            lines.append(f"  {frame.get('filename')}:{frame.get('lineno')} {frame.get('name')}")
        lines.append(f"  {part.get('exc_type')}: {part.get('exc_value')}")
    return "\n".join(lines)
