"""The runs of plans: where they are, what became of their steps, and their artifacts."""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.config import nearest
from components.core.errors import DataError, NotWritableError, UsageError
from components.core.stage import Port
from pipelines.plan import Plan, read_plan

PLAN, RECORD, STATUS, LOG, STATE, LOCK = (
    "plan.json",
    "run.json",
    "status.json",
    "log.jsonl",
    "state",
    ".lock",
)

StepState = Literal["waiting", "running", "finished", "reused", "failed", "skipped", "interrupted"]
RunState = Literal["running", "finished", "failed", "interrupted"]
DONE: frozenset[StepState] = frozenset({"finished", "reused"})
"""States in which a step's artifacts are there."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StepStatus(_Record):
    """What became of one step of a run: the content of its `status.json`."""

    state: StepState = "waiting"
    reason: str = ""
    """Why it ran, was skipped, or could not be reused; for a failed step its last lines."""
    origin: str | None = None
    """`RUN/STEP` that the artifacts of a reused step were taken from."""
    attempt: int = 0
    key: str | None = None
    """Digest of stage, config, inputs, code and image."""
    state_key: str | None = None
    """Digest of stage, config and inputs: whose in-flight state lies in `state/`."""
    left_out: tuple[str, ...] = ()
    """Inputs of a `many` port that were not there: `metrics.CELL`."""
    gpus: tuple[str, ...] = ()
    pid: int | None = None
    exit_code: int | None = None
    started: datetime | None = None
    ended: datetime | None = None

    @property
    def seconds(self) -> float | None:
        """How long the last attempt took, or has taken so far."""
        if self.started is None:
            return None
        return ((self.ended or datetime.now(UTC)) - self.started).total_seconds()


class Parent(_Record):
    """The run that a rerun takes its upstream artifacts from."""

    run: str
    steps: tuple[str, ...]
    """What is executed again."""
    states: dict[str, str] = {}
    """Where the in-flight state of steps lies that continue the earlier attempt."""


class ClusterRun(_Record):
    """Where a submitted run is executed, and where its artifacts are."""

    run: str
    """Its id in Kubeflow Pipelines."""
    pipeline: str
    """Name of the compiled pipeline."""
    namespace: str
    server: str
    """Of the API, for people; commands find it through the options of the cluster."""
    artifacts: str
    """URL of the run's folder in the store: `ROOT/PIPELINE/RUN`; below it `TASK/ID/PORT`."""

    @property
    def store(self) -> str:
        """URL of the folder that holds the pipeline's runs."""
        return self.artifacts.rpartition("/")[0]


class RunRecord(_Record):
    """The content of `run.json`."""

    id: str
    plan: str
    """Name of the recipe."""
    scale: str
    created: datetime
    steps: tuple[str, ...]
    mounts: dict[str, str] = {}
    """Folders of the mounted data sets."""
    parent: Parent | None = None
    cluster: ClusterRun | None = None
    """Of a submitted run. Its folder holds what was last heard of it, and what was pulled."""
    state: RunState = "running"
    ended: datetime | None = None


@dataclass(frozen=True)
class Run:
    """One execution of a plan.

    Whoever reads a run goes through these methods, so that a run may also lie
    elsewhere than in a folder of this machine.
    """

    folder: Path

    @property
    def id(self) -> str:
        """The run's name."""
        return self.folder.name

    @cached_property
    def plan(self) -> Plan:
        """The plan, checked against the stages of this version."""
        return read_plan(self.folder / PLAN)

    @property
    def plan_text(self) -> str:
        """The plan as it was written."""
        return (self.folder / PLAN).read_text("utf-8")

    @property
    def record(self) -> RunRecord:
        """What is known of the run as a whole."""
        return _read(self.folder / RECORD, RunRecord)

    @property
    def state(self) -> RunState:
        """What became of the run; `running` only while somebody executes it."""
        record = self.record
        if record.state == "running" and record.cluster is None and not self.is_locked():
            return "interrupted"
        return record.state

    def status(self, step: str) -> StepStatus:
        """Return what became of a step."""
        path = self.folder / step / STATUS
        status = _read(path, StepStatus) if path.exists() else StepStatus()
        if status.state == "running" and self.record.cluster is None and not self.is_locked():
            return status.model_copy(
                update={"state": "interrupted", "reason": "the runner ended without a word"}
            )
        return status

    def statuses(self) -> dict[str, StepStatus]:
        """Return what became of every step, in the plan's order."""
        return {step: self.status(step) for step in self.record.steps}

    def artifact(self, step: str, port: str, kind: str = "Model") -> Path:
        """Return where a step's output is; HTML is a file, everything else a folder."""
        return self.folder / step / (f"{port}.html" if kind == "HTML" else port)

    def artifacts(self, step: str, ports: Mapping[str, Port]) -> dict[str, Path]:
        """Return where all outputs of a step are."""
        return {name: self.artifact(step, name, port.kind) for name, port in ports.items()}

    def log(self, step: str) -> Path:
        """Return where a step's log is."""
        return self.folder / step / LOG

    def require_step(self, step: str) -> str:
        """Return the name of a step.

        Raises:
            UsageError: if the run has none of that name, naming the nearest.
        """
        steps = self.record.steps
        if step not in steps:
            raise UsageError(f"run {self.id} has no step {step!r}{nearest(step, steps)}")
        return step

    def maker(self, step: str) -> tuple["Run", str]:
        """Return the run and step that made a step's artifacts: its own, or what was reused."""
        origin = self.status(step).origin
        if origin is None:
            return self, step
        run_id, _, name = origin.partition("/")
        return Run(self.folder.parent / run_id), name

    def write_status(self, step: str, status: StepStatus) -> None:
        """Replace a step's status."""
        write_record(self.folder / step / STATUS, status)

    def write_record(self, record: RunRecord) -> None:
        """Replace what is known of the run as a whole."""
        write_record(self.folder / RECORD, record)

    def is_locked(self) -> bool:
        """Say whether somebody executes the run, or a process of it is still alive."""
        try:
            descriptor = os.open(self.folder / LOCK, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    @contextmanager
    def lock(self) -> Iterator[int]:
        """Keep others from executing the run at the same time.

        Yields:
            The lock's descriptor; a process that inherits it holds the lock too.

        Raises:
            UsageError: if somebody does already.
        """
        path = self.folder / LOCK
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _acquire(descriptor):
                raise UsageError(
                    f"run {self.id} is being executed by process {path.read_text() or '?'}: "
                    f"`moco status {self.id}` shows it; --new starts another run of the same plan"
                )
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
            yield descriptor
        finally:
            os.close(descriptor)


def runs_folder() -> Path:
    """Return the folder of the runs: MOCO_RUNS, else `runs` below the working directory."""
    return Path(os.environ.get("MOCO_RUNS") or "runs").absolute()


def writable_runs_folder() -> Path:
    """Return the folder of the runs, made if need be.

    Raises:
        NotWritableError: if it cannot be written.
    """
    runs = runs_folder()
    probe = runs / ".writable"
    try:
        runs.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise NotWritableError(
            f"the folder of the runs, {runs}, cannot be written ({error.strerror}); "
            "MOCO_RUNS names another one"
        ) from None
    return runs


def create_run(
    runs: Path,
    plan: Plan,
    mounts: Mapping[str, str] | None = None,
    parent: Parent | None = None,
) -> Run:
    """Make the folder of a new run.

    Raises:
        OSError: if it cannot be written.
    """
    created = datetime.now(UTC)
    stem = f"{plan.name}-{created:%Y%m%d-%H%M%S}"
    runs.mkdir(parents=True, exist_ok=True)
    for number in range(1, 1000):
        folder = runs / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        break
    run = Run(folder)
    (folder / PLAN).write_text(plan.to_json(), "utf-8")
    run.write_record(
        RunRecord(
            id=folder.name,
            plan=plan.name,
            scale=plan.scale,
            created=created,
            steps=tuple(plan.steps),
            mounts=dict(mounts or {}),
            parent=parent,
        )
    )
    return run


def forget_run(run: Run) -> None:
    """Remove the folder of a run that never began."""
    shutil.rmtree(run.folder)


def all_runs(runs: Path) -> list[Run]:
    """Return every run of a folder, the newest first; one of another version is left out."""
    found = []
    for path in runs.glob(f"*/{RECORD}"):
        with suppress(DataError):
            run = Run(path.parent)
            found.append((run.record.created, run.id, run))
    return [run for *_, run in sorted(found, key=lambda one: one[:2], reverse=True)]


def unfinished_run(
    runs: Path, plan: Plan, mounts: Mapping[str, str], parent: Parent | None = None
) -> Run | None:
    """Return the newest run of the same plan on the same data, if it did not finish."""
    text = plan.to_json()
    for run in all_runs(runs):
        record = run.record
        if record.cluster is not None:
            continue
        if record.parent == parent and record.mounts == mounts and run.plan_text == text:
            return None if record.state == "finished" else run
    return None


def write_record(path: Path, record: BaseModel) -> None:
    """Write a record atomically: a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(record.model_dump_json(indent=1), "utf-8")
    temporary.replace(path)


R = TypeVar("R", bound=BaseModel)


def _read(path: Path, record: type[R]) -> R:
    try:
        return record.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(f"{path} is not a {record.__name__} of this version: {error}") from None


def _acquire(descriptor: int, attempts: Sequence[float] = (0.05, 0.2, 0.5, 0)) -> bool:
    """Take a lock; one that only asks whether it is free holds it for an instant."""
    for pause in attempts:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(pause)
        else:
            return True
    return False
