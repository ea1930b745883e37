"""The folder of a pipeline's runs in a store: what lies there, and what was read of it."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from pydantic import ValidationError

from components.core.errors import DataError
from components.core.manifest import MANIFEST, Manifest
from components.core.store import Entry, KeyNotFound, Store
from components.core.store.base import TRANSFERS
from pipelines.runs.artifacts import key_below, parse_manifest
from pipelines.runs.record import RECORD, RunRecord

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class StoredAttempt:
    """What lies below `RUN/TASK/ID`: sizes of files, by port and by name; HTML has the name ''."""

    run: str
    task: str
    number: str
    ports: dict[str, dict[str, int]] = field(default_factory=dict)

    def key(self, port: str) -> str:
        """Return the key of an output, from the pipeline's folder on."""
        return f"{self.run}/{self.task}/{self.number}/{port}"


class StoredRuns:
    """The folder of a pipeline's runs in a store; what was read of it is kept."""

    def __init__(self, store: Store, url: str) -> None:
        self.store = store
        self.url = url
        self.prefix = key_below(store, url)
        self._manifests: dict[str, tuple[Manifest, bytes] | DataError] = {}

    def attempts(self, run: str) -> list[StoredAttempt]:
        """Return the attempts at tasks of one run."""
        if "_everything" in self.__dict__:
            return [attempt for attempt in self.everything if attempt.run == run]
        return _attempts(self.store.list(self.key(run)), self.prefix)

    @cached_property
    def _everything(self) -> list[Entry]:
        return self.store.list(self.prefix)

    @cached_property
    def everything(self) -> list[StoredAttempt]:
        """The attempts of all runs, those of the newest run first."""
        records = self.records

        def created(attempt: StoredAttempt) -> datetime:
            record = records.get(attempt.run)
            return record.created if record else _LONG_AGO

        return sorted(_attempts(self._everything, self.prefix), key=created, reverse=True)

    @cached_property
    def records(self) -> dict[str, RunRecord]:
        """What the runs' own records say, by Kubeflow's ids; not of runs of another version."""
        start = len(self.key(""))
        keys = [entry.key[start:] for entry in self._everything]
        runs = [key.removesuffix(f"/{RECORD}") for key in keys if key.endswith(f"/{RECORD}")]
        runs = [run for run in runs if "/" not in run]
        records = {}
        with ThreadPoolExecutor(TRANSFERS) as pool:
            texts = pool.map(lambda run: self.store.read(self.key(f"{run}/{RECORD}")), runs)
            for run, text in zip(runs, texts, strict=True):
                with suppress(ValidationError):
                    records[run] = RunRecord.model_validate_json(text)
        return records

    def key(self, name: str) -> str:
        """Return the key in the store of what lies in the pipeline's folder."""
        return f"{self.prefix}/{name}" if self.prefix else name

    def fetch(self, names: Iterable[str]) -> None:
        """Read the manifests of artifacts, many at a time."""
        wanted = [name for name in dict.fromkeys(names) if name not in self._manifests]
        if wanted:
            with ThreadPoolExecutor(min(TRANSFERS, len(wanted))) as pool:
                self._manifests |= zip(wanted, pool.map(self._read, wanted), strict=True)

    def manifest(self, name: str) -> tuple[Manifest, bytes]:
        """Return the manifest of an artifact, and how it was written.

        Raises:
            DataError: if it is damaged.
        """
        self.fetch([name])
        manifest = self._manifests[name]
        if isinstance(manifest, DataError):
            raise manifest
        return manifest

    def _read(self, name: str) -> tuple[Manifest, bytes] | DataError:
        try:
            text = self.store.read(self.key(f"{name}/{MANIFEST}"))
        except KeyNotFound as error:
            return DataError(str(error))
        try:
            return parse_manifest(f"{self.url}/{name}", text), text
        except DataError as error:
            return error


def _attempts(entries: Iterable[Entry], prefix: str) -> list[StoredAttempt]:
    """Sort listed files into attempts; the state beside an output, and logs, are no outputs."""
    attempts: dict[tuple[str, str, str], StoredAttempt] = {}
    start = len(prefix) + 1 if prefix else 0
    for entry in entries:
        parts = entry.key[start:].split("/", 4)
        if len(parts) >= 4 and not parts[3].endswith(".state"):
            run, task, number, port, *rest = parts
            attempt = attempts.setdefault((run, task, number), StoredAttempt(run, task, number))
            attempt.ports.setdefault(port, {})[rest[0] if rest else ""] = entry.size
    return list(attempts.values())
