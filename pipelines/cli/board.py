"""`moco board`: TensorBoard over the trainings of runs, those under way included."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Annotated

from cyclopts import Parameter

from components.core.errors import DataError, ExitCode, UsageError
from pipelines.backends import backend_of
from pipelines.backends.base import Settings
from pipelines.cli.options import ClusterValues, RunName
from pipelines.cli.output import say, tell
from pipelines.plan import Step
from pipelines.runs.artifacts import StoredArtifact, StoredArtifacts
from pipelines.runs.find import find_run
from pipelines.runs.folder import Run, runs_folder
from pipelines.runs.history import Row
from pipelines.words import number

EVENTS = "tensorboard"
"""Folder of a training's event files in its metrics."""
FETCHED = ".board"
"""Folder, below the runs, of event files that were fetched alone."""


def board(
    *runs: RunName,
    port: Annotated[int, Parameter(help="Of the page, on this machine.", show_default=True)] = 6006,
    cluster: ClusterValues = (),
) -> int:
    """Open TensorBoard over the trainings of runs, until it is interrupted.

    Trainings that run are shown, too: those of this machine as they go, those of a cluster up to
    their last checkpoint. Of others only the event files are fetched.
    """
    if not runs:
        raise UsageError("name at least one run: moco board RUN [RUN ...]")
    if find_spec("tensorboard") is None:
        raise UsageError("the board needs tensorboard: install moco-transfer[train]")
    with tempfile.TemporaryDirectory() as folder:
        count = 0
        named = {run.id: run for run in (find_run(name, runs_folder()) for name in runs)}
        for run in named.values():
            for step, events in _events(run, cluster):
                place = Path(folder) / run.id / step
                place.parent.mkdir(exist_ok=True)
                place.symlink_to(events, target_is_directory=True)
                count += 1
        if not count:
            raise DataError("no training of these runs has written anything yet")
        say(f"{number(count, 'training')}: http://localhost:{port} (Ctrl-C ends)")
        command = ["tensorboard.main", "--logdir", folder, "--host", "localhost", f"--port={port}"]
        with suppress(KeyboardInterrupt):
            return subprocess.run(  # noqa: S603 - our own words
                [sys.executable, "-m", *command], check=False
            ).returncode
    return ExitCode.OK


def _events(run: Run, cluster: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """Yield the folder of event files of every training that has some."""
    backend = backend_of(run, Settings(cluster))
    stored: StoredArtifacts | None = None
    for step in run.plan:
        for port in _metrics(step):
            here = run.artifact(step.name, port) / EVENTS
            if here.is_dir():
                yield step.name, here.absolute()
                continue
            if run.record.artifacts is None:
                continue
            if stored is None:
                stored = backend.artifacts(run)
            artifact = stored.get((step.name, port))
            if artifact:
                events = _fetch(artifact, run, step.name)
            else:
                events = _write(backend.history(run, step.name), run, step.name)
            if events:
                yield step.name, events


def _write(rows: Sequence[Row], run: Run, step: str) -> Path | None:
    """Write event files of a training that is under way; None if nothing is known of it."""
    if not rows:
        return None
    from tensorboard.summary import Writer

    folder = (runs_folder() / FETCHED / run.id / f"{step}.under_way").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    with closing(Writer(str(folder))) as writer:
        for row in rows:
            for name, value in row.items():
                if name not in ("step", "epoch"):
                    writer.add_scalar(name, value, int(row["step"]))
    return folder


def _metrics(step: Step) -> list[str]:
    return [name for name, port in step.stage.outputs.items() if port.kind == "Metrics"]


def _fetch(artifact: StoredArtifact, run: Run, step: str) -> Path | None:
    """Fetch the event files of an artifact; None if it has none."""
    folder = (runs_folder() / FETCHED / run.id / step).absolute()
    files = artifact.manifest.files if artifact.manifest else {}
    entries = {name: entry for name, entry in files.items() if name.startswith(f"{EVENTS}/")}
    for name, entry in entries.items():
        target = folder / PurePosixPath(name).name
        if target.is_file() and target.stat().st_size == entry.size:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        digest = artifact.store.get(f"{artifact.key}/{name}".strip("/"), target)
        if digest != entry.sha256:
            target.unlink()
            tell(f"{artifact.url}/{name} is not what its manifest says: left out")
            return None
    return folder if entries else None
