"""`moco status` and `moco logs`: what runs did, and what they said."""

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Annotated

from cyclopts import Parameter

from components.core.errors import MocoError
from pipelines.backends.display import MARKS
from pipelines.cli.options import Json, RunName, StepName
from pipelines.cli.output import print_json, print_table, say, tell
from pipelines.logs import Event, LogFollower, read_log, show_event
from pipelines.runs import DONE, Run, RunRecord, StepStatus, all_runs, find_run, runs_folder
from pipelines.words import duration, number

PAUSE = 0.3  # seconds between two looks at a log that is followed


def status(run: RunName | None = None, /, *, json: Json = False) -> None:
    """List the runs, or the steps of one."""
    runs = runs_folder()
    if run is None:
        _list_runs(all_runs(runs), json)
    else:
        _show_run(find_run(run, runs), json)


def logs(
    run: RunName,
    step: StepName | None = None,
    /,
    *,
    follow: Annotated[
        bool, Parameter(name=("--follow", "-f"), help="Go on until the run ends.")
    ] = False,
) -> None:
    """Print the logs of a run or of one of its steps."""
    found = find_run(run, runs_folder())
    names = [found.require_step(step)] if step else list(found.record.steps)
    prefix = max(map(len, names)) if len(names) > 1 else 0
    if follow:
        with suppress(KeyboardInterrupt):
            _follow(found, names, prefix)
        return
    for name in names:
        maker, step_there = found.maker(name)
        if maker != found:
            tell(f"{name} was reused; this is what it said in {maker.id}")
        elif not found.log(name).exists():
            tell(f"{name} has said nothing: it is {found.status(name).state}")
        _print_events(name, _condensed(read_log(maker.log(step_there))), prefix)


def _list_runs(runs: list[Run], json: bool) -> None:
    if json:
        print_json([_run_facts(run) for run in runs])
        return
    if not runs:
        say(f"No runs in {runs_folder()}. `moco run appendix --scale digits` makes one.")
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
                origin,
            ]
        )
    print_table(["run", "scale", "state", "steps", "started", "took", ""], rows, ["steps", "took"])


def _show_run(run: Run, json: bool) -> None:
    if json:
        print_json(_run_facts(run))
        return
    record, statuses = run.record, run.statuses()
    origin = f", a rerun of {record.parent.run}" if record.parent else ""
    say(f"{run.id} ({record.plan}, {record.scale} scale{origin}): {run.state}")
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
        return f"from {one.origin}"
    if one.state == "failed":
        return f"exit code {one.exit_code}"
    if one.state == "finished" and one.left_out:
        return f"without {number(len(one.left_out), 'input')}: {', '.join(one.left_out)}"
    return one.reason.splitlines()[-1] if one.state in ("skipped", "running") and one.reason else ""


def _run_facts(run: Run) -> dict[str, object]:
    record = run.record.model_dump(mode="json")
    steps = {name: one.model_dump(mode="json") for name, one in run.statuses().items()}
    return {**record, "state": run.state, "folder": str(run.folder), "steps": steps}


def _took(record: RunRecord) -> float | None:
    return (record.ended - record.created).total_seconds() if record.ended else None


def _local(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"


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


def _follow(run: Run, names: list[str], prefix: int) -> None:
    followers = {name: LogFollower(run.log(name)) for name in names}
    goes_on = True
    while goes_on:
        goes_on = _goes_on(run, names)
        for name, follower in followers.items():
            _print_events(name, follower.read(rest=not goes_on), prefix)
        if goes_on:
            time.sleep(PAUSE)


def _goes_on(run: Run, names: list[str]) -> bool:
    try:
        states = {run.status(name).state for name in names}
    except MocoError:
        return True
    return run.state == "running" and bool(states & {"waiting", "running"})


def _print_events(name: str, events: Iterable[Event], prefix: int) -> None:
    for event in events:
        for line in show_event(event).splitlines():
            say(f"{name:<{prefix}} | {line}" if prefix else line)
