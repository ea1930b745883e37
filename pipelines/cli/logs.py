"""`moco logs`: what the steps of a run said, on this machine or on a cluster."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from components.core.errors import ClusterError, MocoError, StoreError
from pipelines.cli.options import ClusterValues, RunName, StepName, cluster_of
from pipelines.cli.output import say, tell
from pipelines.find import find_run
from pipelines.logs import ATTEMPT, Event, LogFollower, read_log, show_event
from pipelines.runs import Run, runs_folder

if TYPE_CHECKING:
    from pipelines.cluster.connection import Cluster

PAUSE = 0.3  # seconds between two looks at a log that is followed
ASK = 3.0  # seconds between two looks for new pods of steps that are followed
GONE = (
    "nothing is left of its log. Its pods are gone, as a cluster removes them some time after a "
    "run, and the store has no copy: Kubeflow makes one when a step ends by itself, unless its "
    "server has PUBLISH_LOGS=false"
)


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
    found = find_run(run, runs_folder())
    names = [found.require_step(step)] if step else list(found.record.steps)
    if not found.record.cluster:
        with suppress(KeyboardInterrupt):
            _follow(found, names) if follow else _print(found, names)
        return
    place = cluster_of(cluster, run=found)
    with suppress(KeyboardInterrupt):
        _follow_submitted(found, names, place) if follow else _print_submitted(found, names, place)


def _print(run: Run, names: Sequence[str]) -> None:
    for name in names:
        maker, step_there = run.maker(name)
        if maker != run:
            tell(f"{name} was reused; this is what it said in {maker.id}")
        elif not run.log(name).exists():
            tell(f"{name} has said nothing: it is {run.status(name).state}")
        _print_events(name, _condensed(read_log(maker.log(step_there))), names)


def _follow(run: Run, names: Sequence[str]) -> None:
    followers = {name: LogFollower(run.log(name)) for name in names}
    goes_on = True
    while goes_on:
        goes_on = _goes_on(run, names)
        for name, follower in followers.items():
            _print_events(name, follower.read(rest=not goes_on), names)
        if goes_on:
            time.sleep(PAUSE)


def _goes_on(run: Run, names: Sequence[str]) -> bool:
    try:
        states = {run.status(name).state for name in names}
    except MocoError:
        return True
    return run.state == "running" and bool(states & {"waiting", "running"})


def _print_submitted(run: Run, names: Sequence[str], cluster: "Cluster") -> None:
    """Print what the pods of a submitted run still hold of its logs, or the store."""
    from pipelines.cluster.podlogs import attempts, pods_of_run

    assert run.record.cluster is not None
    _ask(run, cluster)
    pods = pods_of_run(cluster, run.record.cluster)
    for name in names:
        if silent := _why_silent(run, name):
            tell(silent)
            continue
        try:
            found = attempts(run, name, cluster, pods)
            several = max(len(found), run.status(name).attempt) > 1
            for attempt in found:
                if several:
                    _print_events(name, [{"event": ATTEMPT, "attempt": attempt.number}], names)
                _print_events(name, _condensed(attempt.read()), names)
        except (ClusterError, StoreError) as error:
            tell(f"{name}: its log cannot be read: {error}")
            continue
        if not found:
            tell(f"{name}: {GONE}")


def _follow_submitted(run: Run, names: Sequence[str], cluster: "Cluster") -> None:
    """Print what the pods of a submitted run say, until it ends."""
    from pipelines.cluster.podlogs import LogStream, pods_of_run, pods_of_step

    assert run.record.cluster is not None
    stream = LogStream(cluster, run.record.cluster, names)
    _ask(run, cluster)
    pods = pods_of_run(cluster, run.record.cluster)
    ended = [name for name in names if run.status(name).state not in ("waiting", "running")]
    _print_submitted(run, [name for name in ended if not pods_of_step(pods, name)], cluster)
    goes_on = True
    while goes_on:
        goes_on = _goes_on(run, names)
        stream.look(pods_of_run(cluster, run.record.cluster))
        for name, event in stream.read(ASK, rest=not goes_on):
            _print_events(name, [event], names)
        if goes_on:
            _ask(run, cluster)


def _ask(run: Run, cluster: "Cluster") -> None:
    """Write down how a submitted run goes; if that cannot be had, its logs may be."""
    from pipelines.cluster.look import refresh

    try:
        refresh(run, cluster)
    except ClusterError as error:
        tell(f"{run.id}: {error}")


def _why_silent(run: Run, name: str) -> str | None:
    """Say why a submitted run's step has said nothing, if it has not."""
    status = run.status(name)
    if status.state == "reused":
        return f"{name} did not run: its outputs are {status.reason}; the run that made them has it"
    if status.attempt:
        return None
    reason = f": {status.reason.splitlines()[-1]}" if status.reason else ""
    return f"{name} has said nothing: it is {status.state}{reason}"


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
