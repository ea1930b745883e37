"""`moco pull`: the artifacts of a run here, verified, or as a bundle elsewhere."""

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from components.core.config import nearest
from components.core.errors import UsageError
from components.core.stage import Kind
from pipelines.cells import cells_of
from pipelines.cli.options import ClusterValues, RunName
from pipelines.cli.output import say, tell
from pipelines.cluster.pull import Pulled, Selection, opener_of
from pipelines.cluster.pull import pull as pull_run
from pipelines.cluster.transfer import Watch
from pipelines.find import find_run
from pipelines.runs import Run, runs_folder
from pipelines.words import duration, number, size

EVERY = 10.0  # seconds between two plain lines
SHOWN = 30  # steps


def pull(
    run: RunName,
    /,
    *,
    stage: Annotated[
        str | None, Parameter(help="Only what this stage made, or this step of the run.")
    ] = None,
    port: Annotated[str | None, Parameter(help="Only outputs of this name.")] = None,
    metrics: Annotated[
        bool, Parameter(help="Only measurements: all that `moco report` needs.")
    ] = False,
    output: Annotated[
        Path | None,
        Parameter(
            name=("--output", "-o"),
            help="Folder that gets a bundle, RUN/, which needs no cluster any more.",
        ),
    ] = None,
    cluster: ClusterValues = (),
) -> None:
    """Fetch the finished artifacts of a run, each verified against its manifest.

    What is there already is kept; after an interruption the same command goes on.
    """
    found = find_run(run, runs_folder())
    kinds: tuple[Kind, ...] | None = ("Metrics",) if metrics else None
    selection = Selection(_steps(found, stage), _ports(found, port), kinds)
    started = time.monotonic()
    with _watch_for(found) as watch:
        pulled = pull_run(found, opener_of(found, cluster), selection, output, watch)
    _sum_up(found, pulled, time.monotonic() - started)


class _Plain:
    """A line before, and one in a while."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.files, self.size, self.done, self.fetched = 0, 0, 0, 0
        self.said = time.monotonic()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin(self, artifacts: int, files: int, count: int) -> None:
        """Say how much it is."""
        self.files, self.size = files, count
        tell(_to_fetch(self.run, artifacts, files, count))

    def advance(self, count: int) -> None:
        """Say it now and then."""
        self.done, self.fetched = self.done + 1, self.fetched + count
        if time.monotonic() - self.said >= EVERY:
            self.said = time.monotonic()
            tell(f"  {self.done} of {self.files} files, {size(self.fetched)} of {size(self.size)}")


class _Live:
    """A bar on a terminal."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.bar = Progress(
            TextColumn("{task.fields[files]}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self.task = self.bar.add_task("", total=None, files="looking", visible=False)
        self.files, self.done = 0, 0

    def __enter__(self) -> Watch:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def begin(self, artifacts: int, files: int, count: int) -> None:
        """Say how much it is, and show the bar."""
        self.files = files
        self.bar.console.print(_to_fetch(self.run, artifacts, files, count), highlight=False)
        self.bar.update(self.task, total=count, files=f"0/{files} files", visible=bool(files))

    def advance(self, count: int) -> None:
        """Move the bar."""
        self.done += 1
        self.bar.update(self.task, advance=count, files=f"{self.done}/{self.files} files")


def _watch_for(run: Run) -> _Plain | _Live:
    return _Live(run.id) if sys.stderr.isatty() else _Plain(run.id)


def _to_fetch(run: str, artifacts: int, files: int, count: int) -> str:
    if not artifacts:
        return f"{run}: nothing to fetch"
    return (
        f"{run}: {number(artifacts, 'artifact')} to fetch, {number(files, 'file')}, {size(count)}"
    )


def _steps(run: Run, name: str | None) -> Sequence[str] | None:
    """Return the steps that a stage's or a step's name means.

    Raises:
        UsageError: if it is neither, naming the nearest.
    """
    if name is None:
        return None
    steps = [step.name for step in run.plan if name in (step.name, step.stage.name)]
    if not steps:
        names = {*run.plan.steps, *(step.stage.name for step in run.plan)}
        raise UsageError(
            f"--stage {name}: run {run.id} has no stage and no step of that name"
            f"{nearest(name, names)}"
        )
    return steps


def _ports(run: Run, name: str | None) -> Sequence[str] | None:
    if name is None:
        return None
    ports = {port for step in run.plan for port in step.stage.outputs}
    if name not in ports:
        raise UsageError(
            f"--port {name}: no step of run {run.id} has such an output{nearest(name, ports)}; "
            f"there are {', '.join(sorted(ports))}"
        )
    return (name,)


def _sum_up(run: Run, pulled: Pulled, seconds: float) -> None:
    """Say what came where, what is missing, and what can be done with it."""
    ports: dict[str, list[str]] = {}
    for artifact in pulled.fetched:
        step, _, port = artifact.partition(".") if "://" not in artifact else (artifact, "", "")
        ports.setdefault(step, []).append(port)
    for step in list(ports)[:SHOWN]:
        say(f"  {step}  {', '.join(ports[step])}".rstrip())
    if len(ports) > SHOWN:
        say(f"  and {len(ports) - SHOWN} more")
    kept = f"; {len(pulled.kept)} were there already, verified" if pulled.kept else ""
    say(
        f"{number(len(pulled.fetched), 'artifact')} ({number(pulled.files, 'file')}, "
        f"{size(pulled.size)}) fetched in {duration(seconds)}{kept}"
    )
    say(f"In {pulled.run.folder}")
    if pulled.missing:
        say(f"Not finished: {', '.join(pulled.missing)} (moco status {run.id})")
    name = run.id if pulled.run == run else shlex.quote(str(pulled.run.folder))
    if any(cell.is_there for cell in cells_of(pulled.run).values()):
        say(f"Next: moco report {name}")
    else:
        say(f"Next: moco status {name}")
