"""The folders of runs: where they are, what became of their steps, and their artifacts."""

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

from components.core.config import nearest
from components.core.errors import DataError, ExitCode, NotWritableError, UsageError
from components.core.stage import Port
from pipelines.plan import Plan, read_plan
from pipelines.runs.record import (
    LOCK,
    LOG,
    PLAN,
    RECORD,
    STATUS,
    Parent,
    RunRecord,
    RunState,
    StepStatus,
    read_record,
    write_record,
)


@dataclass(frozen=True)
class Run:
    """One execution of a plan, as its folder on this machine tells it."""

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
        return read_record(self.folder / RECORD, RunRecord)

    @property
    def state(self) -> RunState:
        """What became of the run; `running` only while somebody executes it."""
        state = self.record.state
        return "interrupted" if state == "running" and self.is_abandoned() else state

    @property
    def exit_code(self) -> int:
        """0 of a finished run, the code of the step that failed first, or 75 of a stopped run."""
        state = self.state
        if state != "failed":
            return ExitCode.OK if state == "finished" else ExitCode.INTERRUPTED
        failed = [status for status in self.statuses().values() if status.state == "failed"]
        failed.sort(key=lambda status: status.ended or datetime.max.replace(tzinfo=UTC))
        return (failed[0].exit_code if failed else None) or ExitCode.FAILURE

    def status(self, step: str) -> StepStatus:
        """Return what became of a step."""
        path = self.folder / step / STATUS
        status = read_record(path, StepStatus) if path.exists() else StepStatus()
        if status.state == "running" and self.is_abandoned():
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

    def is_abandoned(self) -> bool:
        """Say whether a process of this machine executed the run, and none does any more."""
        return (self.folder / LOCK).exists() and not self.is_locked()

    def is_locked(self) -> bool:
        """Say whether a process of this machine executes the run, or one of a step is alive."""
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
    *,
    backend: str = "local",
    executed_here: bool = True,
) -> Run:
    """Make the folder of a new run.

    Args:
        runs: Folder of the runs.
        plan: The plan.
        mounts: Folders of the mounted data sets.
        parent: The run that a rerun comes from.
        backend: What makes it run.
        executed_here: Whether a process of this machine executes it, and holds its lock meanwhile.

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
    if executed_here:
        (folder / LOCK).touch()
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
            backend=backend,
        )
    )
    return run


def forget_run(run: Run) -> None:
    """Remove the folder of a run that never began."""
    shutil.rmtree(run.folder)


def all_runs(runs: Path) -> list[Run]:
    """Return every run of a folder, the newest first; one of another version is left out."""
    runs_found = []
    for path in runs.glob(f"*/{RECORD}"):
        with suppress(DataError):
            run = Run(path.parent)
            runs_found.append((run.record.created, run.id, run))
    return [run for *_, run in sorted(runs_found, key=lambda entry: entry[:2], reverse=True)]


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
