"""`moco status`: what runs did, here and on clusters, once or until they end."""

from datetime import UTC, datetime
from typing import Annotated

from cyclopts import Parameter

from components.core.errors import ClusterError, ExitCode, MocoError, UsageError
from pipelines.backends import backend_of
from pipelines.backends.base import Backend, Settings
from pipelines.backends.refreshing import refresh_all
from pipelines.cli.options import ClusterValues, Json, RunName
from pipelines.cli.output import print_json, print_table, say, tell
from pipelines.cli.watch import watch
from pipelines.runs.find import find_run
from pipelines.runs.folder import Run, all_runs, runs_folder
from pipelines.runs.progress import MARKS, reused_from
from pipelines.runs.record import DONE, RECORD, RunRecord, StepStatus
from pipelines.words import duration, number


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
        listed = all_runs(runs)
        _hear_of_all(listed, cluster)
        _list_runs(listed, json)
        return ExitCode.OK
    named = find_run(run, runs)
    backend = backend_of(named, Settings(cluster))
    if live:
        return watch(named, backend)
    _hear_of(named, backend)
    _show_run(named, backend, json)
    return ExitCode.OK


def _hear_of(run: Run, backend: Backend) -> None:
    """Ask how a run goes; if that cannot be had, say how old the last answer is."""
    if run.state == "finished":
        return
    try:
        backend.refresh(run)
    except ClusterError as error:
        tell(f"last heard of at {_heard(run)}: {error}")


def _hear_of_all(runs: list[Run], values: tuple[str, ...]) -> None:
    """Ask how the runs go that have not ended, all at once and for a short time."""
    going = [run for run in runs if run.state == "running"]
    for run, why in refresh_all(going, Settings(values)).items():
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
        states = [status.state for status in run.statuses().values()]
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
                _place(run),
                origin,
            ]
        )
    titles = ["run", "scale", "state", "steps", "started", "took", "where", ""]
    print_table(titles, rows, ["steps", "took"])


def _show_run(run: Run, backend: Backend, json: bool) -> None:
    if json:
        print_json(_run_facts(run))
        return
    record, statuses = run.record, run.statuses()
    origin = f", a rerun of {record.parent.run}" if record.parent else ""
    say(f"{run.id} ({record.plan}, {record.scale} scale{origin}): {run.state}")
    for line in backend.whereabouts(run).lines:
        say(f"  {line}")
    for name, folder in record.mounts.items():
        say(f"  data {name}: {folder}")
    print_table(
        ["", "step", "state", "time", "attempt", ""],
        [
            [
                MARKS[status.state],
                name,
                status.state,
                duration(status.seconds) if status.started and status.state != "reused" else "",
                str(status.attempt) if status.attempt > 1 else "",
                _remark(status),
            ]
            for name, status in statuses.items()
        ],
        right=["time"],
    )
    for name, status in statuses.items():
        if status.state == "failed":
            say(f"\n{name}, exit code {status.exit_code}; its last lines:")
            say("\n".join(f"    {line}" for line in status.reason.splitlines()))
            say(f"  all of them: moco logs {run.id} {name}")


def _remark(status: StepStatus) -> str:
    if status.state == "reused":
        return reused_from(status)
    if status.state == "failed":
        return f"exit code {status.exit_code}"
    if status.state == "finished" and status.left_out:
        return f"without {number(len(status.left_out), 'input')}: {', '.join(status.left_out)}"
    told = status.state in ("waiting", "running", "skipped") and status.reason
    return status.reason.splitlines()[-1] if told else ""


def _run_facts(run: Run) -> dict[str, object]:
    record = run.record.model_dump(mode="json")
    steps = {name: status.model_dump(mode="json") for name, status in run.statuses().items()}
    return {**record, "state": run.state, "folder": str(run.folder), "steps": steps}


def _place(run: Run) -> str:
    """Say in a word where a run is executed; its backend's name where that does not know."""
    try:
        return backend_of(run, Settings()).whereabouts(run).place
    except MocoError:  # the others of a list are shown all the same
        return run.record.backend


def _took(record: RunRecord) -> float | None:
    return (record.ended - record.created).total_seconds() if record.ended else None


def _local(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"
