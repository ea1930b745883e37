"""Pulls the artifacts of a run: verified, continued after an interruption, complete on its own.

What is pulled has the layout of a local run, so whoever reads those reads it too.
"""

import fcntl
import os
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from components.core.errors import (
    ClusterError,
    DataError,
    NotWritableError,
    StoreError,
    UsageError,
)
from components.core.kind import ArtifactKind
from components.core.manifest import MANIFEST
from components.core.store import bucket_and_key, is_remote
from components.core.store.base import TRANSFERS
from pipelines.plan import Existing, Output, Step
from pipelines.runs.artifacts import (
    Origin,
    StoredArtifacts,
    artifact_at,
    artifact_here,
    artifacts_here,
)
from pipelines.runs.cells import Cell, cells_of, existing_artifact, origin_of, pulled_artifact
from pipelines.runs.folder import Run
from pipelines.runs.record import DONE, LOST, PLAN, RECORD, StepState
from pipelines.runs.transfer import Transfer, Watch, compare, fetch, need_room
from pipelines.tables import report_steps
from pipelines.words import number

PULLING = ".pulling"  # locked by the one who pulls into a run's folder
OUTDATED: frozenset[StepState] = frozenset({"waiting", "running"})
"""States, as last heard, that finished artifacts disprove."""


@dataclass(frozen=True)
class Selection:
    """Which artifacts of a run are meant; by default all.

    Attributes:
        steps: Names of steps.
        ports: Names of output ports.
        kinds: Kinds of artifacts.
    """

    steps: Collection[str] | None = None
    ports: Collection[str] | None = None
    kinds: Collection[ArtifactKind] | None = None

    def takes(self, step: str, port: str, kind: ArtifactKind) -> bool:
        """Say whether an artifact is meant."""
        return (
            (self.steps is None or step in self.steps)
            and (self.ports is None or port in self.ports)
            and (self.kinds is None or kind in self.kinds)
        )

    def of(self, step: Step) -> dict[str, ArtifactKind]:
        """Return the kinds of a step's outputs that are meant, by port."""
        kinds = {name: port.kind for name, port in step.stage.outputs.items()}
        return {port: kind for port, kind in kinds.items() if self.takes(step.name, port, kind)}


ALL = Selection()


@dataclass(frozen=True)
class Pulled:
    """What was pulled.

    Attributes:
        run: The run where it is now: in its own folder, or as a bundle.
        fetched: The artifacts that were not there, as `STEP.PORT`.
        kept: Those that were there already, verified.
        files: How many files were fetched.
        size: Their bytes.
        missing: Steps that were meant and have no finished artifacts.
    """

    run: Run
    fetched: tuple[str, ...]
    kept: tuple[str, ...]
    files: int
    size: int
    missing: tuple[str, ...]


def pull(
    run: Run,
    origin: Origin,
    selection: Selection = ALL,
    destination: Path | None = None,
    watch: Watch | None = None,
) -> Pulled:
    """Fetch the finished artifacts of a run; what is there already is verified and kept.

    Two pulls into one folder wait for each other.

    Args:
        run: A submitted run; for a bundle also a run of this machine.
        origin: Knows where its artifacts lie: its backend.
        selection: Which artifacts.
        destination: Folder that gets the bundle `RUN/`, in place of the run's own folder.
        watch: Is told how it goes.

    Raises:
        UsageError: if there is nothing to fetch from.
        DataError: naming every artifact that is not what its manifest says.
        StoreError: if the store cannot be reached or refuses.
        DiskFullError, NotWritableError: before anything is fetched, if that can be known.
    """
    target = run if destination is None else _bundle(run, destination)
    if target.folder == run.folder and run.record.artifacts is None:
        raise UsageError(
            f"run {run.id} was executed on this machine: its artifacts are in {run.folder}. "
            "--output FOLDER makes a bundle of them"
        )
    with _alone(target):
        finished = _finished(run, target, origin)
        transfers = [
            Transfer(
                f"{step.name}.{port}",
                finished[step.name, port],
                target.artifact(step.name, port, kind),
            )
            for step in run.plan
            for port, kind in selection.of(step).items()
            if (step.name, port) in finished
        ]
        transfers += _cells_from_elsewhere(run, target, origin, selection)
        compare(transfers)
        wanted = [transfer for transfer in transfers if not transfer.is_here]
        pulled = Pulled(
            run=target,
            fetched=tuple(transfer.name for transfer in wanted),
            kept=tuple(transfer.name for transfer in transfers if transfer.is_here),
            files=sum(len(transfer.files) for transfer in wanted),
            size=sum(transfer.bytes_of(name) for transfer in wanted for name in transfer.files),
            missing=tuple(
                step.name
                for step in run.plan
                if any((step.name, port) not in finished for port in selection.of(step))
            ),
        )
        need_room(target.folder, pulled.size)
        if watch:
            watch.begin(len(pulled.fetched), pulled.files, pulled.size)
        fetch(wanted, watch)
        _note(run, target, finished)
    return pulled


def ensure_metrics(run: Run, origin: Origin, cells: Collection[str] | None = None) -> str:
    """Pull what a report over a submitted run reads, unless all of it is there.

    Args:
        run: Any run; one whose artifacts are all in its folder is left alone.
        origin: Knows where its artifacts lie: its backend.
        cells: Keys of the cells that are needed; by default all.

    Returns:
        Why some of it may be missing, in words; empty if there is nothing to say.

    Raises:
        MocoError: if none of it is there and none can be fetched.
    """
    if run.record.artifacts is None:
        return ""
    needed = [cell for key, cell in cells_of(run).items() if cells is None or key in cells]
    lacking = [cell for cell in needed if not cell.is_there and not _is_settled(cell)]
    if not lacking:
        return ""
    steps = {cell.source.step for cell in lacking if isinstance(cell.source, Output)}
    if any(isinstance(cell.source, Existing) for cell in lacking):
        steps |= {step.name for step in report_steps(run.plan)}
    kinds: tuple[ArtifactKind, ...] = ("Metrics",)
    try:
        pull(run, origin, Selection(steps, kinds=kinds))
    except (StoreError, ClusterError) as error:
        if len(lacking) == len(needed):
            raise
        return f"{number(len(lacking), 'cell')} of run {run.id} could not be fetched: {error}"
    return ""


def _bundle(run: Run, destination: Path) -> Run:
    """Return the run in the folder of a bundle, with its plan and its record."""
    bundle = Run(destination.absolute() / run.id)
    if bundle.folder.resolve() == run.folder.resolve():
        return run
    if (bundle.folder / RECORD).exists():
        if bundle.record.created != run.record.created:
            raise NotWritableError(f"{bundle.folder} holds another run; name another folder")
        return bundle
    if bundle.folder.exists() and {path.name for path in bundle.folder.iterdir()} - {PLAN}:
        raise NotWritableError(f"{bundle.folder} holds something else; name another folder")
    _copy_records(run, bundle)
    origin = origin_of(run)
    if origin and not report_steps(run.plan):  # its tables are those of the run that it came from
        tables = Run(bundle.folder.parent / origin.id)
        if not tables.folder.exists():
            _copy_records(origin, tables)
    return bundle


def _copy_records(run: Run, copy: Run) -> None:
    copy.folder.mkdir(parents=True)
    (copy.folder / PLAN).write_text(run.plan_text, "utf-8")
    copy.write_record(run.record.model_copy(update={"state": run.state}))


@contextmanager
def _alone(run: Run) -> Iterator[None]:
    """Wait until nobody else pulls into the folder of a run."""
    descriptor = os.open(run.folder / PULLING, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _finished(run: Run, target: Run, origin: Origin) -> StoredArtifacts:
    """Return the finished artifacts of a run; a bundle of what is all here needs no store."""
    if run.record.artifacts is None or (target != run and _is_all_here(run)):
        return artifacts_here(run)
    return origin.artifacts(run)


def _is_all_here(run: Run) -> bool:
    here = artifacts_here(run)
    return all((step.name, port) in here for step in run.plan for port in step.stage.outputs)


def _cells_from_elsewhere(
    run: Run, target: Run, origin: Origin, selection: Selection
) -> list[Transfer]:
    """Return the cells that the run's reports took from other runs: a bundle holds them too."""
    sources = {
        source.uri: source
        for step in report_steps(run.plan)
        if selection.takes(step.name, "metrics", "Metrics")
        for _, source in step.sources()
        if isinstance(source, Existing) and (is_remote(source.uri) or target != run)
    }
    stores = {
        url: origin.store(url, run)
        for url in {bucket_and_key(uri)[0] for uri in sources if is_remote(uri)}
    }

    def transfer(source: Existing) -> Transfer:
        here = existing_artifact(run, source)
        if target != run and (here / MANIFEST).exists():
            stored = artifact_here(here)
        elif is_remote(source.uri):
            stored = artifact_at(source.uri, stores[bucket_and_key(source.uri)[0]])
        else:
            raise DataError(f"{source.uri}, which the report of run {run.id} reads, is gone")
        return Transfer(source.uri, stored, pulled_artifact(target, source))

    with ThreadPoolExecutor(TRANSFERS) as pool:
        return list(pool.map(transfer, sources.values()))


def _note(run: Run, target: Run, finished: StoredArtifacts) -> None:
    """Write down which steps are finished, where nothing better is known of them."""
    for step in run.plan:
        before = status = run.status(step.name)
        artifacts = [
            finished[step.name, port]
            for port in step.stage.outputs
            if (step.name, port) in finished
        ]
        if artifacts:
            origin = status.origin or artifacts[0].origin
            if status.state in OUTDATED:
                state = "reused" if origin else "finished"
                status = status.model_copy(update={"state": state, "reason": "", "pid": None})
            if status.state == "reused":
                status = status.model_copy(update={"origin": origin})
        if target != run or status != before:
            target.write_status(step.name, status)
    record = target.record
    done = all(target.status(step.name).state in DONE for step in run.plan)
    if record.artifacts and record.state == "running" and done:
        target.write_record(record.model_copy(update={"state": "finished"}))


def _is_settled(cell: Cell) -> bool:
    """Say whether a cell's step came to an end without an artifact."""
    source = cell.source
    return isinstance(source, Output) and cell.run.status(source.step).state in LOST
