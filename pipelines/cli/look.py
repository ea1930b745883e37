"""`moco status`: what runs did, here and on clusters, once or until they end."""

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from components.core.errors import ClusterError, ExitCode, UsageError
from pipelines.backends.display import display_for
from pipelines.backends.progress import MARKS, Display, reused_from
from pipelines.cli.options import ClusterValues, Json, RunName, cluster_of
from pipelines.cli.output import print_json, print_table, say, tell
from pipelines.find import find_run
from pipelines.logs import LogFollower
from pipelines.runs import DONE, RECORD, Run, RunRecord, StepStatus, all_runs, runs_folder
from pipelines.words import duration, number

if TYPE_CHECKING:
    from pipelines.cluster.connection import Cluster


PAUSE = 0.3  # seconds between two looks at this machine's own files
ASK, ASK_SELDOM = 2.0, 10.0  # seconds between two looks at a cluster: after a change, at most


def status(
    run: RunName | None = None,
    /,
    *,
    live: Annotated[
        bool, Parameter(name="--watch", help="Show the run until it ends; exit with its code.")
    ] = False,
    cluster: ClusterValues = (),
    json: Json = False,
) -> int:
    """List the runs, or the steps of one."""
    runs = runs_folder()
    if run is None:
        if live:
            raise UsageError("--watch shows one run; name it")
        found = all_runs(runs)
        _hear_of_all(found, cluster)
        _list_runs(found, json)
        return ExitCode.OK
    one = find_run(run, runs)
    if live:
        return watch(one, cluster_of(cluster, run=one) if one.record.cluster else None)
    _hear_of(one, cluster)
    _show_run(one, json)
    return ExitCode.OK


def watch(run: Run, cluster: "Cluster | None" = None) -> int:
    """Show a run until it ends; interrupted, leave it to go on.

    Args:
        run: The run.
        cluster: Of a submitted run, the cluster that it is on.

    Returns:
        The run's exit code: 0, or that of the step that failed first; 75 if it was stopped.

    Raises:
        ClusterError: if the cluster cannot be asked at the start; later that is only told.
    """
    display = display_for(sys.stdout)
    if cluster:
        _ask(run, cluster)
    display.start(run)
    try:
        _show_until_the_end(run, cluster, display)
    except KeyboardInterrupt:
        display.note(f"the run goes on: moco status {run.id} --watch shows it again")
        return ExitCode.INTERRUPTED
    finally:
        display.stop()
    return _exit_code(run)


def _show_until_the_end(run: Run, cluster: "Cluster | None", display: Display) -> None:
    shown: dict[str, StepStatus] = {}
    followers = {name: LogFollower(run.log(name)) for name in run.record.steps}
    told, pause = "", ASK
    while True:
        changed = _show_changes(run, display, shown)
        if run.state != "running":
            return
        if cluster:
            pause = ASK if changed else min(ASK_SELDOM, pause * 1.5)
            _wait(display, pause)
            try:
                _show_progress(run, cluster, display)
                _ask(run, cluster)
                told = ""
            except ClusterError as error:
                if str(error) != told:
                    told = str(error)
                    display.note(f"{told}; asking again")
        else:
            for name, follower in followers.items():
                for event in follower.read():
                    display.progressed(name, event)
            _wait(display, PAUSE)


def _show_changes(run: Run, display: Display, shown: dict[str, StepStatus]) -> bool:
    """Tell the display which steps have another state or reason than was shown last."""
    changed = False
    for name, one in run.statuses().items():
        before = shown.get(name, StepStatus())
        if (one.state, one.reason, one.attempt) != (before.state, before.reason, before.attempt):
            display.changed(name, one)
            changed = True
        shown[name] = one
    return changed


def _show_progress(run: Run, cluster: "Cluster", display: Display) -> None:
    from pipelines.cluster.look import progress

    for name, event in progress(run, cluster).items():
        display.progressed(name, event)


def _wait(display: Display, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        display.tick()
        time.sleep(min(left, 0.2))


def _exit_code(run: Run) -> int:
    state = run.state
    if state != "failed":
        return ExitCode.OK if state == "finished" else ExitCode.INTERRUPTED
    failed = [one for one in run.statuses().values() if one.state == "failed"]
    failed.sort(key=lambda one: one.ended or datetime.max.replace(tzinfo=UTC))
    return (failed[0].exit_code if failed else None) or ExitCode.FAILURE


def _ask(run: Run, cluster: "Cluster") -> None:
    from pipelines.cluster.look import refresh

    refresh(run, cluster)


def _hear_of(run: Run, values: tuple[str, ...]) -> None:
    """Ask how a submitted run goes; if that cannot be had, say how old the last answer is."""
    if run.record.cluster is None or run.state == "finished":
        return
    try:
        _ask(run, cluster_of(values, run=run))
    except ClusterError as error:
        tell(f"last heard of at {_heard(run)}: {error}")


def _hear_of_all(runs: list[Run], values: tuple[str, ...]) -> None:
    """Ask how the submitted runs go that have not ended, all at once and for a short time."""
    going = [run for run in runs if run.record.cluster and run.state == "running"]
    if not going:
        return
    from pipelines.cluster.look import refresh_all

    for run, why in refresh_all(going, lambda run: cluster_of(values, run=run)).items():
        tell(f"{run.id} was last heard of at {_heard(run)}: {why}")


def _heard(run: Run) -> str:
    """Say when a submitted run's state was written down."""
    moment = datetime.fromtimestamp((run.folder / RECORD).stat().st_mtime, UTC)
    return _local(moment)


def _list_runs(runs: list[Run], json: bool) -> None:
    if json:
        print_json([_run_facts(run) for run in runs])
        return
    if not runs:
        say(f"No runs in {runs_folder()}. `moco run first_look --scale digits` makes one.")
        return
    rows = []
    for run in runs:
        record = run.record
        states = [one.state for one in run.statuses().values()]
        done = sum(state in DONE for state in states)
        origin = f"rerun of {record.parent.run}" if record.parent else ""
        rows.append(
            [
                run.id,
                record.scale,
                run.state,
                f"{done}/{len(states)}",
                _local(record.created),
                duration(_took(record)),
                record.cluster.namespace if record.cluster else "local",
                origin,
            ]
        )
    titles = ["run", "scale", "state", "steps", "started", "took", "where", ""]
    print_table(titles, rows, ["steps", "took"])


def _show_run(run: Run, json: bool) -> None:
    if json:
        print_json(_run_facts(run))
        return
    record, statuses = run.record, run.statuses()
    origin = f", a rerun of {record.parent.run}" if record.parent else ""
    say(f"{run.id} ({record.plan}, {record.scale} scale{origin}): {run.state}")
    if record.cluster:
        place = record.cluster
        say(f"  on the cluster: run {place.run} in namespace {place.namespace}")
        if place.server.startswith("http"):
            say(f"  in Kubeflow's pages: {place.server.rstrip('/')}/#/runs/details/{place.run}")
    for name, folder in record.mounts.items():
        say(f"  data {name}: {folder}")
    print_table(
        ["", "step", "state", "time", "attempt", ""],
        [
            [
                MARKS[one.state],
                name,
                one.state,
                duration(one.seconds) if one.started and one.state != "reused" else "",
                str(one.attempt) if one.attempt > 1 else "",
                _remark(one),
            ]
            for name, one in statuses.items()
        ],
        right=["time"],
    )
    for name, one in statuses.items():
        if one.state == "failed":
            say(f"\n{name}, exit code {one.exit_code}; its last lines:")
            say("\n".join(f"    {line}" for line in one.reason.splitlines()))
            say(f"  all of them: moco logs {run.id} {name}")


def _remark(one: StepStatus) -> str:
    if one.state == "reused":
        return reused_from(one)
    if one.state == "failed":
        return f"exit code {one.exit_code}"
    if one.state == "finished" and one.left_out:
        return f"without {number(len(one.left_out), 'input')}: {', '.join(one.left_out)}"
    told = one.state in ("waiting", "running", "skipped") and one.reason
    return one.reason.splitlines()[-1] if told else ""


def _run_facts(run: Run) -> dict[str, object]:
    record = run.record.model_dump(mode="json")
    steps = {name: one.model_dump(mode="json") for name, one in run.statuses().items()}
    return {**record, "state": run.state, "folder": str(run.folder), "steps": steps}


def _took(record: RunRecord) -> float | None:
    return (record.ended - record.created).total_seconds() if record.ended else None


def _local(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"
