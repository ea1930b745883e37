"""Asks how submitted runs go, and writes it down where runs of this machine keep it.

Kubeflow Pipelines tells in which state a run and its tasks are, and nothing of why. The reasons
are in its workflow, in the pods and their events, and in the steps' logs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from pipelines.backends.kubeflow.connection import Cluster
from pipelines.backends.kubeflow.next_parts import TASK as NEXT_PARTS
from pipelines.backends.kubeflow.parts import StepPlaces, StoredParts
from pipelines.backends.kubeflow.podlogs import pods_of_places, pods_of_step, read_pod_log
from pipelines.backends.kubeflow.record import ClusterRun
from pipelines.backends.kubeflow.server import Server
from pipelines.backends.kubeflow.steps import NEVER, STOPPED, StatusReader, upstream_of
from pipelines.runs.folder import Run
from pipelines.runs.logs import Event
from pipelines.runs.record import DONE, LOST, RunState, StepStatus
from pipelines.words import became

PROGRESS_TAIL = 50  # lines of a log in which the newest progress is looked for
NO_WORD = "what was to begin the next parts failed, and left no word"


def refresh(run: Run, cluster: Cluster) -> None:
    """Ask how a submitted run goes, and write that into the run's folder.

    What was known before stays where nobody knows better any more.

    Args:
        run: The run.
        cluster: The cluster that it is on.

    Raises:
        ClusterError: if the server cannot be reached, refuses, or does not know the run.
        StoreError: if the run was cut, and the store cannot be reached or refuses.
    """
    before, places = run.statuses(), find_places(run, cluster)
    statuses: dict[str, StepStatus] = {}
    heard = []
    for place in places.runs.values():
        mine = {step: before[step] for step in before if places.of.get(step) == place}
        heard.append(_ask(run, place, cluster, mine, statuses))
        statuses |= heard[-1].statuses
    if any(part.state == "running" for part in heard):
        state: RunState = "running"
    elif places.parts:
        cancelled = stored_parts(cluster, ClusterRun.of(run).artifacts).cancelled
        state = "interrupted" if cancelled else "failed"
    else:
        state = heard[0].state
    statuses |= _not_begun(run, places, state, statuses, heard)
    done = all(statuses[step].state in DONE for step in before)
    if places.parts and state != "running" and done:
        state = "finished"
    if state == "finished" and not done:
        state = "failed"  # an output that was never written is no error to the platform
    for step, known in before.items():
        if statuses[step] != known:
            run.write_status(step, statuses[step])
    ends = [part.ended for part in heard if part.ended]
    ended = max(ends) if ends and state != "running" else None
    run.write_record(run.record.model_copy(update={"state": state, "ended": ended}))


def find_places(run: Run, cluster: Cluster) -> StepPlaces:
    """Return where the steps of a run are executed.

    Raises:
        ClusterError, StoreError: if the run was cut, and the store cannot be reached or refuses.
    """
    place = ClusterRun.of(run)
    if not place.cut:
        return StepPlaces.whole(place, run.record.steps)
    return stored_parts(cluster, place.artifacts).places(place)


@lru_cache(maxsize=32)
def stored_parts(cluster: Cluster, url: str) -> StoredParts:
    """Return the parts of the run whose folder a URL names; what is read of them is kept."""
    return StoredParts(cluster.store(url), "")


def progress(run: Run, cluster: Cluster) -> list[tuple[str, Event]]:
    """Return the newest progress of the steps that run, and what they have just warned of.

    Raises:
        ClusterError: if the cluster cannot be reached or refuses.
    """
    running = [name for name, status in run.statuses().items() if status.state == "running"]
    pods = pods_of_places(cluster, find_places(run, cluster)) if running else []
    told: list[tuple[str, Event]] = []
    for name in running:
        for pod in pods_of_step(pods, name)[-1:]:
            events = read_pod_log(cluster, pod, PROGRESS_TAIL)
            newest = [event for event in events if event["event"] == "progress"][-1:]
            warned = [event for event in events if event.get("level") == "warning"]
            told += [(name, event) for event in (*warned, *newest)]
    return told


@dataclass(frozen=True)
class _Heard:
    """What was heard of one run of Kubeflow's.

    Attributes:
        state: Of it as a whole.
        ended: When it came to its end.
        statuses: Of its steps.
        refused: Why it did not begin the parts that come after it, if it did not.
    """

    state: RunState
    ended: datetime | None
    statuses: Mapping[str, StepStatus]
    refused: str


def _ask(
    run: Run,
    place: ClusterRun,
    cluster: Cluster,
    before: Mapping[str, StepStatus],
    others: Mapping[str, StepStatus],
) -> _Heard:
    known = Server(cluster).told(place)
    reader = StatusReader(
        run, place, cluster, known.state, known.stopped, before, known.tasks, others=others
    )
    task = known.tasks.get(NEXT_PARTS)
    failed = task is not None and task.state == "failed"
    refused = reader.why(NEXT_PARTS, task) or NO_WORD if task and failed else ""
    return _Heard(known.state, known.ended, reader.statuses(), refused)


def _not_begun(
    run: Run,
    places: StepPlaces,
    state: RunState,
    known: Mapping[str, StepStatus],
    heard: Sequence[_Heard],
) -> dict[str, StepStatus]:
    """Say what becomes of steps that no part has begun."""
    upstream = upstream_of(run)
    numbers = {step: n for n, (part, _) in places.parts.items() for step in part.steps}
    # Any that still runs may begin what reads of others that have ended.
    alive = [part for part in heard if part.state == "running"] or heard[-1:]
    refused = alive[-1].refused if alive and all(part.refused for part in alive) else ""
    statuses: dict[str, StepStatus] = {}
    for step in (step for step in run.record.steps if step not in known):
        before = {**known, **statuses}
        lost = [name for name in upstream.get(step, ()) if before[name].state in LOST]
        if lost:
            reason = became(lost[0], before[lost[0]].state)
            statuses[step] = StepStatus(state="skipped", reason=reason)
        elif state == "running" and refused:
            words = f"part {numbers[step]} will not begin by itself; once this run has ended:"
            statuses[step] = StepStatus(reason=f"{refused}\n{words} moco rerun {run.id} --failed")
        elif state == "running":
            words = f"part {numbers[step]} of the run begins when what it reads is there"
            statuses[step] = StepStatus(reason=words)
        elif state == "interrupted":
            statuses[step] = StepStatus(state="interrupted", reason=STOPPED)
        elif refused:
            words = f"{refused}\npart {numbers[step]} was not begun: moco rerun {run.id} --failed"
            statuses[step] = StepStatus(state="skipped", reason=words)
        else:
            statuses[step] = StepStatus(state="skipped", reason=NEVER)
    return statuses
