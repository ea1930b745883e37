"""The parts of a run that is too large for one workflow, as they are written down in its store.

Each part is a run of Kubeflow's of its own. What there is to know of them lies in the folder of the
run, beside its plan and its record:

    ROOT/PIPELINE/RUN/parts/options.json        what was asked of the cluster, and given
                            cancelled           whether somebody has stopped the run
                            N/claimed           of the first of several: somebody writes them
                              pipeline.yaml     the compiled part
                              part.json         its steps, and what has to be there before it begins
                              begun.json        its run; whoever writes it first has begun it

`begun.json` is written only where there is none, so that of several who begin a part at the same
time one is right, and all others see that.
"""

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.errors import DataError
from components.core.store import Store
from components.core.store.base import TRANSFERS
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.backends.kubeflow.record import ClusterRun

FOLDER = "parts"
_CLAIMED, _PIPELINE, _PART, _BEGUN, _OPTIONS, _CANCELLED = (
    "claimed",
    "pipeline.yaml",
    "part.json",
    "begun.json",
    "options.json",
    "cancelled",
)


R = TypeVar("R", bound=BaseModel)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Part(_Record):
    """What is known of a part before it begins."""

    number: int
    """From 1; parts that try again what failed come after those that they stand for."""
    name: str
    """Of its run; no other run on the server has it."""
    steps: tuple[str, ...]
    reads: dict[str, tuple[str, str]] = {}
    """Step and port, of earlier parts, by the parameter that takes the URI of the artifact."""
    parameters: dict[str, str] = {}
    """Values of its other parameters, where they are not the defaults."""
    states: dict[str, str] = {}
    """Where the state lies that steps go on from; it stays there."""


class Begun(_Record):
    """What was begun of a part."""

    run: str | None
    """Its id in Kubeflow Pipelines; None where nothing of it could run."""
    left_out: tuple[str, ...] = ()
    """Steps that cannot run: what they read was not made."""


class Given(_Record):
    """What a run was submitted with: parts that come later are asked for the same."""

    options: ClusterOptions
    parameters: dict[str, str] = {}
    parallel: int | None = None
    """Steps on GPUs that may run at a time."""

    @property
    def most(self) -> int | None:
        """Steps on GPUs that a part may have: some parts run while the next one finds room."""
        return max(1, self.parallel // 4) if self.parallel else None


class StoredParts:
    """The parts of one run in a store."""

    def __init__(self, store: Store, run: str) -> None:
        """Look at the parts of a run.

        Args:
            store: A store that holds the run's folder.
            run: Key of that folder; empty if it is the store's own.
        """
        self._store = store
        self._folder = f"{run}/{FOLDER}" if run else FOLDER
        self._known: dict[str, bytes] = {}  # what is written once

    def claim(self, number: int) -> bool:
        """Take a part's number, and those after it, for oneself; False if somebody has it."""
        return self._store.write(self.claimed(number), b"", if_absent=True)

    def claimed(self, number: int) -> str:
        """Return the key that says that a number is taken."""
        return self._key(number, _CLAIMED)

    def write(self, part: Part, pipeline: str) -> None:
        """Write down a part; nobody sees it before it is whole."""
        self._store.write(self._key(part.number, _PIPELINE), pipeline.encode())
        self._store.write(self._key(part.number, _PART), part.model_dump_json().encode())

    def pipeline(self, number: int) -> str:
        """Return a part as it was compiled."""
        return self._store.read(self._key(number, _PIPELINE)).decode()

    def begin(self, number: int, begun: Begun) -> Begun:
        """Write down what was begun of a part, and return what holds: somebody may have been first.

        Raises:
            DataError: if that cannot be read.
        """
        key = self._key(number, _BEGUN)
        if self._store.write(key, begun.model_dump_json().encode(), if_absent=True):
            return begun
        return _parsed(key, self._store.read(key), Begun)

    def all(self) -> dict[int, tuple[Part, Begun | None]]:
        """Return the parts, in order, and what was begun of them.

        Raises:
            DataError: if one cannot be read.
        """
        keys = {entry.key for entry in self._store.list(self._folder)}
        parts = self._read((key for key in keys if key.endswith(f"/{_PART}")), Part)
        begun = self._read((key for key in keys if key.endswith(f"/{_BEGUN}")), Begun)
        numbered = sorted((part.number, key) for key, part in parts.items())
        return {
            number: (parts[key], begun.get(key.removesuffix(_PART) + _BEGUN))
            for number, key in numbered
        }

    def places(self, place: ClusterRun) -> "StepPlaces":
        """Return where the steps of the run are executed.

        Args:
            place: Of the run.

        Raises:
            DataError: if what is written down of its parts cannot be read.
        """
        parts = self.all()
        runs: dict[int, ClusterRun] = {}
        of: dict[str, ClusterRun] = {}
        left_out: set[str] = set()
        states: dict[str, str] = {}
        for number, (part, begun) in parts.items():
            # A later part stands for the earlier one of the same steps, even before it has begun.
            left_out -= {*part.steps}
            of = {step: where for step, where in of.items() if step not in part.steps}
            states |= part.states
            if begun is None:
                continue
            left_out |= {*begun.left_out}
            if begun.run:
                runs[number] = place.part(begun.run)
                of |= dict.fromkeys(set(part.steps) - {*begun.left_out}, runs[number])
        return StepPlaces(parts, runs, of, frozenset(left_out), states)

    def give(self, given: Given) -> None:
        """Write down what the run is submitted with."""
        self._store.write(f"{self._folder}/{_OPTIONS}", given.model_dump_json().encode())

    @property
    def given(self) -> Given:
        """What the run was submitted with."""
        key = f"{self._folder}/{_OPTIONS}"
        return _parsed(key, self._store.read(key), Given)

    def cancel(self) -> None:
        """Let no further part begin."""
        self._store.write(f"{self._folder}/{_CANCELLED}", b"")

    def go_on(self) -> None:
        """Let parts begin again."""
        self._store.delete(f"{self._folder}/{_CANCELLED}")

    @property
    def cancelled(self) -> bool:
        """Whether no further part may begin."""
        return self._store.holds(f"{self._folder}/{_CANCELLED}")

    def _key(self, number: int, file: str) -> str:
        return f"{self._folder}/{number:03}/{file}"

    def _read(self, keys: Iterable[str], record: type[R]) -> dict[str, R]:
        wanted = sorted(keys)
        fresh = [key for key in wanted if key not in self._known]
        with ThreadPoolExecutor(TRANSFERS) as pool:
            self._known |= zip(fresh, pool.map(self._store.read, fresh), strict=True)
        return {key: _parsed(key, self._known[key], record) for key in wanted}


@dataclass(frozen=True)
class StepPlaces:
    """Where the steps of a run are executed.

    Attributes:
        parts: The parts of a run that was cut, and what was begun of them.
        runs: The runs of Kubeflow's that it consists of; that of a part by its number.
        of: By step; those of parts that have not begun are not there.
        left_out: Steps that were left out where their part began, as what they read was not made.
        states: Where the state of steps lies that go on from what an earlier part has saved.
    """

    parts: Mapping[int, tuple[Part, Begun | None]]
    runs: Mapping[int, ClusterRun]
    of: Mapping[str, ClusterRun] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    states: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def whole(cls, place: ClusterRun, steps: Iterable[str]) -> Self:
        """Return the one place of a run that was not cut."""
        return cls({}, {1: place}, dict.fromkeys(steps, place))


def part_name(run: str, place: ClusterRun, number: int | str) -> str:
    """Name the run of a part; the folder's name tells it from those of others with this name."""
    return f"{run}-part-{number}-{place.run[:8]}"


def places_of(
    place: ClusterRun, steps: Iterable[str], store: Store, folder: str = ""
) -> StepPlaces:
    """Return where the steps of a run are executed.

    Args:
        place: Of the run.
        steps: All of its steps.
        store: A store that holds the run's folder.
        folder: Key of that folder.

    Raises:
        DataError: if what is written down of its parts cannot be read.
        StoreError: if the store cannot be reached or refuses.
    """
    if not place.cut:
        return StepPlaces.whole(place, steps)
    return StoredParts(store, folder).places(place)


def _parsed(key: str, text: bytes, record: type[R]) -> R:
    try:
        return record.model_validate(json.loads(text))
    except (ValueError, ValidationError) as error:
        raise DataError(f"{key} is not a {record.__name__} of this version: {error}") from None
