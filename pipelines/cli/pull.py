"""`moco pull`: the artifacts of a run here, verified, or as a bundle elsewhere."""

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from components.core.config import nearest
from components.core.errors import UsageError
from components.core.kind import ArtifactKind
from pipelines.backends import backend_of
from pipelines.backends.base import Settings
from pipelines.cli.display import display_for
from pipelines.cli.options import ClusterValues, RunName
from pipelines.cli.output import say
from pipelines.runs.cells import cells_of
from pipelines.runs.find import find_run
from pipelines.runs.folder import Run, runs_folder
from pipelines.runs.progress import BYTES, Display
from pipelines.runs.pull import Pulled, Selection
from pipelines.runs.pull import pull as pull_run
from pipelines.words import duration, number, size

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
    named = find_run(run, runs_folder())
    kinds: tuple[ArtifactKind, ...] | None = ("Metrics",) if metrics else None
    selection = Selection(_steps(named, stage), _ports(named, port), kinds)
    started = time.monotonic()
    shown = Shown(named.id, display_for(sys.stderr))
    try:
        origin = backend_of(named, Settings(cluster))
        pulled = pull_run(named, origin, selection, output, shown)
    finally:
        shown.stop()
    _sum_up(named, pulled, time.monotonic() - started)


class Shown:
    """Shows a transfer on a display."""

    def __init__(self, run: str, display: Display) -> None:
        self.run, self.display = run, display
        self.files, self.size, self.done, self.fetched = 0, 0, 0, 0
        self.started = time.monotonic()

    def begin(self, artifacts: int, files: int, count: int) -> None:
        """Say how much it is."""
        self.files, self.size = files, count
        words = f"{number(artifacts, 'artifact')} to fetch, {number(files, 'file')}, {size(count)}"
        self.display.start(f"{self.run}: {words if artifacts else 'nothing to fetch'}")
        if files:
            self.display.busy(self.run, "fetching")

    def advance(self, count: int) -> None:
        """Show how far it is."""
        self.done, self.fetched = self.done + 1, self.fetched + count
        speed = self.fetched / 1e6 / (time.monotonic() - self.started)
        progress = {"event": "progress", "done": self.fetched, "total": self.size, "unit": BYTES}
        self.display.progressed(self.run, {**progress, "files": self.done, "MB/s": speed})

    def tick(self) -> None:
        """Draw, if it is time to."""
        self.display.tick()

    def stop(self) -> None:
        """End."""
        self.display.stop()


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
