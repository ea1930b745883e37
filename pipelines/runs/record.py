"""What is written down of a run and of its steps, wherever it is executed."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from components.core.errors import DataError

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
LOST: frozenset[StepState] = frozenset({"failed", "skipped", "interrupted"})
"""States in which they will not be: what reads them cannot run."""


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
    pod: str | None = None
    """Identity of the pod that ran it last, on a cluster."""
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
    backend: str = "local"
    """What makes it run: a folder of `pipelines/backends/`."""
    place: dict[str, str | bool] = {}
    """Where it is executed, as its backend tells that: ids, namespaces, addresses."""
    artifacts: str | None = None
    """URL of its folder in a store. Its folder here then holds what was last heard of it, and what
    was pulled; without one, all that it made."""
    state: RunState = "running"
    ended: datetime | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_version_0_1(cls, document: Any) -> Any:
        """Read what version 0.1 wrote of a submitted run."""
        if not isinstance(document, dict) or "cluster" not in document:
            return document
        record = {name: value for name, value in document.items() if name != "cluster"}
        if isinstance(document["cluster"], dict):
            place = dict(document["cluster"])
            record |= {"artifacts": place.pop("artifacts", None), "place": place}
            record["backend"] = "kubeflow"
        return record


def write_record(path: Path, record: BaseModel) -> None:
    """Write a record atomically: a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(record.model_dump_json(indent=1), "utf-8")
    temporary.replace(path)


R = TypeVar("R", bound=BaseModel)


def read_record(path: Path, record: type[R]) -> R:
    """Read a record.

    Raises:
        DataError: if it is not there, or not one of this version.
    """
    try:
        return record.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(f"{path} is not a {record.__name__} of this version: {error}") from None
