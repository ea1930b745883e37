"""`moco logs`: what the steps of a run said, on this machine or on a cluster."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Annotated

from cyclopts import Parameter

from components.core.errors import ClusterError, MocoError, StoreError
from pipelines.backends import backend_of
from pipelines.backends.base import Backend, Settings
from pipelines.cli.options import ClusterValues, RunName, StepName
from pipelines.cli.output import say, tell
from pipelines.runs.find import find_run
from pipelines.runs.folder import Run, runs_folder
from pipelines.runs.logs import ATTEMPT, Event, show_event


def logs(
    run: RunName,
    step: StepName | None = None,
    /,
    *,
    follow: Annotated[
        bool, Parameter(name=("--follow", "-f"), help="Go on until the run ends.")
    ] = False,
    cluster: ClusterValues = (),
) -> None:
    """Print the logs of a run or of one of its steps."""
    named = find_run(run, runs_folder())
    steps = [named.require_step(step)] if step else list(named.record.steps)
    backend = backend_of(named, Settings(cluster))
    with suppress(KeyboardInterrupt):
        _hear(named, backend)
        _follow(named, steps, backend) if follow else _print(named, steps, backend, steps)


def _print(run: Run, steps: Sequence[str], backend: Backend, among: Sequence[str]) -> None:
    """Print what is left of what steps said.

    Args:
        run: The run.
        steps: The steps.
        backend: That the run is of.
        among: All steps that are printed.
    """
    for step, log in backend.logs(run, steps):
        if log.note:
            tell(log.note)
        try:
            for attempt in log.attempts:
                if attempt.number > 1 or len(log.attempts) > 1:
                    _print_events(step, [{"event": ATTEMPT, "attempt": attempt.number}], among)
                _print_events(step, _condensed(attempt.read()), among)
        except (ClusterError, StoreError) as error:
            tell(f"{step}: its log cannot be read: {error}")


def _follow(run: Run, steps: Sequence[str], backend: Backend) -> None:
    """Print what steps say, until the run ends."""
    follower = backend.follow(run, steps)
    if follower.ended:
        _print(run, follower.ended, backend, steps)
    goes_on = True
    while goes_on:
        goes_on = _goes_on(run, steps)
        for step, event in follower.read(rest=not goes_on):
            _print_events(step, [event], steps)
        if goes_on:
            _hear(run, backend)


def _goes_on(run: Run, steps: Sequence[str]) -> bool:
    try:
        states = {run.status(step).state for step in steps}
    except MocoError:
        return True
    whole = len(steps) == len(run.record.steps)  # its end comes after that of its last step
    return run.state == "running" and (whole or bool(states & {"waiting", "running"}))


def _hear(run: Run, backend: Backend) -> None:
    """Write down how a run goes; if that cannot be had, its logs may be."""
    try:
        backend.refresh(run)
    except ClusterError as error:
        tell(f"{run.id}: {error}")


def _condensed(events: Iterable[Event]) -> Iterator[Event]:
    """Keep of each stretch of progress only its end."""
    last: Event | None = None
    for event in events:
        if event["event"] != "progress":
            if last:
                yield last
            last = None
            yield event
        else:
            last = event
    if last:
        yield last


def _print_events(name: str, events: Iterable[Event], names: Sequence[str]) -> None:
    """Print events, with the step's name before each line if there are several steps."""
    prefix = f"{name:<{max(map(len, names))}} | " if len(names) > 1 else ""
    for event in events:
        for line in show_event(event).splitlines():
            say(f"{prefix}{line}")
