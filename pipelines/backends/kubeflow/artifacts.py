"""Finds the artifacts of submitted runs, from the store's layout and our manifests alone.

A step that was executed has the folder `ROOT/PIPELINE/RUN/TASK/ID/`, with one folder for each
output port (HTML is one file). One that Kubeflow's cache satisfied has none: what it would have
made lies in an earlier run of the same pipeline.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice

from components.core.config import parse_config
from components.core.errors import ConfigError, DataError, StoreError, UsageError
from components.core.manifest import MANIFEST, Lineage
from components.core.store import Store, open_store
from components.core.store.base import TRANSFERS
from pipelines.backends.kubeflow.connection import Cluster
from pipelines.backends.kubeflow.names import mount_path, pipeline_name, task_name
from pipelines.backends.kubeflow.parts import places_of
from pipelines.backends.kubeflow.record import ClusterRun
from pipelines.backends.kubeflow.stored import StoredAttempt, StoredRuns
from pipelines.plan import Existing, Mounted, Output, Plan, Step
from pipelines.runs.artifacts import (
    StoredArtifact,
    StoredArtifacts,
    is_complete,
    parse_manifest,
)
from pipelines.runs.folder import Run, runs_folder
from pipelines.runs.record import LOST, PLAN, RECORD, StepState

Opener = Callable[[str], Store]

KNOWN = ".known"
"""Folder, below the runs, with the plans and records of runs that were found in a bucket."""

NOT_CACHED: frozenset[StepState] = LOST | {"running"}
"""States, as last heard, of steps that Kubeflow's cache did not satisfy."""


def find_artifacts(run: Run, store: Store, opener: Opener = open_store) -> StoredArtifacts:
    """Return every finished artifact of a submitted run, by step and port.

    Args:
        run: The run.
        store: The store of its pipeline, `ClusterRun.of(run).store`, or a folder above that.
        opener: Opens the stores of artifacts that the run took from elsewhere.

    Raises:
        UsageError: if the run was not submitted, or lies elsewhere.
        DataError: if a manifest of the run is damaged.
        StoreError: if the store cannot be reached or refuses.
    """
    place = ClusterRun.of(run)
    stored = StoredRuns(store, place.store)
    return _Search(run, _runs_of(run, place, stored), stored, opener).find()


def earlier_runs(plan: Plan, cluster: Cluster) -> list[tuple[Run, StoredArtifacts]]:
    """Return all runs of a plan's pipeline with their finished artifacts, the oldest first.

    They are read from the store, so those that others submitted count too; a run of another
    version is left out.

    Raises:
        StoreError, ClusterError: if the store cannot be reached or refuses.
    """
    url = f"{cluster.options.root.rstrip('/')}/{pipeline_name(plan)}"
    stored = StoredRuns(cluster.store(url), url)
    earlier = []
    for name, _ in sorted(stored.records.items(), key=lambda item: item[1].created):
        run = _known_run(stored, name)
        with suppress(ConfigError, DataError, UsageError):
            names = _runs_of(run, ClusterRun.of(run), stored)
            earlier.append((run, _Search(run, names, stored, cluster.store).find()))
    return earlier


def _runs_of(run: Run, place: ClusterRun, stored: StoredRuns) -> list[str]:
    """Return the ids of the runs of Kubeflow's that a run consists of, the newest first."""
    folder = stored.key(place.run)
    places = places_of(place, run.record.steps, stored.store, folder)
    return [of_part.run for of_part in reversed([*places.runs.values()])]


class _Search:
    """Looks for the artifacts of one run."""

    def __init__(self, run: Run, names: Sequence[str], stored: StoredRuns, opener: Opener) -> None:
        self.run, self.names, self.stored, self.opener = run, names, stored, opener
        self.plan = run.plan
        parent = run.record.parent
        self.again = frozenset(parent.steps if parent else ())
        self.taken: dict[str, StoredAttempt] = {}
        self.digests: dict[tuple[str, str], str] = {}  # as the steps after it say

    def find(self) -> StoredArtifacts:
        """Return the artifacts by step and port."""
        self._look_here()
        self._look_elsewhere()
        return {
            (step.name, port): self._stored(step, self.taken[step.name], port)
            for step in self.plan
            if step.name in self.taken
            for port in step.stage.outputs
            if port in self.taken[step.name].ports
        }

    def _look_here(self) -> None:
        """Find what the run executed, the last steps first: they say what they have read."""
        self.executed: dict[str, list[StoredAttempt]] = {}
        for attempt in (one for name in self.names for one in self.stored.attempts(name)):
            self.executed.setdefault(attempt.task, []).append(attempt)
        self.stored.fetch(
            attempt.key(port)
            for step in self.plan
            for attempt in self.executed.get(task_name(step.name), ())
            for port in _folders(step)
            if MANIFEST in attempt.ports.get(port, ())
        )
        for step in reversed(list(self.plan)):
            attempts = self.executed.get(task_name(step.name), [])
            whole = [attempt for attempt in attempts if self._is_whole(step, attempt)]
            if whole:
                # A driver that was started twice gives a task two folders; both may be whole.
                self._take(
                    step,
                    max(whole, key=lambda attempt: (self._agrees(step, attempt), attempt.number)),
                )

    def _look_elsewhere(self) -> None:
        """Find what Kubeflow's cache gave the run, in the plan's order."""
        wanted = [
            step
            for step in self.plan
            if task_name(step.name) not in self.executed
            and step.name not in self.again
            and self.run.status(step.name).state not in NOT_CACHED
        ]
        if not wanted:
            return
        newest: dict[str, StoredAttempt] = {}
        for attempt in self.stored.everything:
            newest.setdefault(attempt.task, attempt)
        self.stored.fetch(
            newest[task_name(step.name)].key(port)
            for step in wanted
            if _has_manifests(step, newest.get(task_name(step.name)))
            for port in _folders(step)
        )
        self.stored.fetch(
            source.uri.removeprefix(f"{self.stored.url}/")
            for step in wanted
            for _, source in step.sources()
            if isinstance(source, Existing) and source.uri.startswith(f"{self.stored.url}/")
        )
        for step in wanted:
            inputs = self._inputs(step)
            for attempt in self._candidates(step) if inputs is not None else ():
                if self._is_the_same(step, inputs or {}, attempt):
                    self._take(step, attempt)
                    break

    def _candidates(self, step: Step) -> Iterator[StoredAttempt]:
        """Yield attempts that may have made a step's outputs: of its own task first."""
        every = [attempt for attempt in self.stored.everything if _has_manifests(step, attempt)]
        own = [attempt for attempt in every if attempt.task == task_name(step.name)]
        rest = iter([*own, *(attempt for attempt in every if attempt.task != task_name(step.name))])
        port = _folders(step)[0]
        count = 1  # the newest is nearly always the one
        while attempts := list(islice(rest, count)):
            self.stored.fetch(attempt.key(port) for attempt in attempts)
            yield from attempts
            count = TRANSFERS

    def _is_the_same(
        self, step: Step, inputs: Mapping[str, Collection[str]], attempt: StoredAttempt
    ) -> bool:
        """Say whether an attempt did the work of a step, on the same inputs."""
        port = _folders(step)[0]
        try:
            manifest, _ = self.stored.manifest(attempt.key(port))
            config = parse_config(step.stage.config, manifest.config)
            return (
                (manifest.stage, manifest.port) == (step.stage.name, port)
                and config == step.config
                and manifest.inputs.keys() == inputs.keys()
                and all(
                    _identity(lineage) in inputs[name] for name, lineage in manifest.inputs.items()
                )
                and self._is_whole(step, attempt)
                and self._agrees(step, attempt)
            )
        except (ConfigError, DataError):
            return False  # another run's damage is not ours

    def _inputs(self, step: Step) -> dict[str, Collection[str]] | None:
        """Return what each input may be identified by; nothing if one of them is not there."""
        inputs: dict[str, Collection[str]] = {}
        for name, source in step.sources():
            if isinstance(source, Mounted):
                inputs[name] = (mount_path(source.name),)
            elif isinstance(source, Existing):
                inputs[name] = (source.uri.rpartition("/")[2], self._existing(source.uri))
            elif source.step in self.taken:
                key = self.taken[source.step].key(source.port)
                inputs[name] = (self.stored.manifest(key)[0].digest,)
            else:
                return None
        return inputs

    def _existing(self, uri: str) -> str:
        """Return the digest of an artifact from elsewhere, '' if it is a foreign file."""
        with suppress(DataError, StoreError):
            if uri.startswith(f"{self.stored.url}/"):
                return self.stored.manifest(uri.removeprefix(f"{self.stored.url}/"))[0].digest
            return parse_manifest(uri, self.opener(uri).read(MANIFEST)).digest
        return ""

    def _take(self, step: Step, attempt: StoredAttempt) -> None:
        self.taken[step.name] = attempt
        for port in _folders(step):
            self._remember(step, self.stored.manifest(attempt.key(port))[0].inputs)

    def _remember(self, step: Step, inputs: Mapping[str, Lineage]) -> None:
        """Note which artifacts a step has read, down to the data."""
        for name, source in step.sources():
            lineage = inputs.get(name)
            if isinstance(source, Output) and lineage and lineage.digest:
                output = (source.step, source.port)
                if output not in self.digests:
                    self.digests[output] = lineage.digest
                    self._remember(self.plan.step(source.step), lineage.inputs)

    def _agrees(self, step: Step, attempt: StoredAttempt) -> bool:
        """Say whether an attempt made what the steps after it have read."""
        return all(
            self.stored.manifest(attempt.key(port))[0].digest == self.digests[step.name, port]
            for port in _folders(step)
            if (step.name, port) in self.digests
        )

    def _is_whole(self, step: Step, attempt: StoredAttempt) -> bool:
        """Say whether every output is there with all its files: they come in any order."""
        return _has_manifests(step, attempt) and all(
            is_complete(self.stored.manifest(attempt.key(port))[0], attempt.ports[port])
            for port in _folders(step)
        )

    def _stored(self, step: Step, attempt: StoredAttempt, port: str) -> StoredArtifact:
        key = attempt.key(port)
        files = attempt.ports[port]
        is_file = step.stage.outputs[port].kind == "HTML"
        manifest, text = (None, b"") if is_file else self.stored.manifest(key)
        return StoredArtifact(
            url=f"{self.stored.url}/{key}",
            store=self.stored.store,
            key=self.stored.key(key),
            size=sum(files.values()),
            manifest=manifest,
            text=text,
            origin=None if attempt.run in self.names else self._origin(step, attempt),
        )

    def _origin(self, step: Step, attempt: StoredAttempt) -> str:
        same = attempt.task == task_name(step.name)
        record = self.stored.records.get(attempt.run)
        run = record.id if record else attempt.run
        return f"{run}/{step.name if same else attempt.task.replace('-', '_')}"


def _folders(step: Step) -> list[str]:
    """Return the outputs of a step that are folders with a manifest."""
    return [name for name, port in step.stage.outputs.items() if port.kind != "HTML"]


def _has_manifests(step: Step, attempt: StoredAttempt | None) -> bool:
    return attempt is not None and all(
        MANIFEST in attempt.ports.get(port, ()) for port in _folders(step)
    )


def _identity(lineage: Lineage) -> str:
    return (lineage.digest or "?") if lineage.origin == "stage" else lineage.name


def _known_run(stored: StoredRuns, name: str) -> Run:
    """Write down a run that lies in a store, where no command takes it for one of this machine."""
    run = Run(runs_folder() / KNOWN / name)
    run.folder.mkdir(parents=True, exist_ok=True)
    for file in (PLAN, RECORD):
        stored.store.get(stored.key(f"{name}/{file}"), run.folder / file)
    return run
