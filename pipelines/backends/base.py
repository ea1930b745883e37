"""What is asked of a backend: to start runs, and to tell of those it has started.

Commands know nothing else of where a run is executed. What a backend tells of a run it writes into
the run's folder, in the words of `pipelines.runs`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from components.core.store import Store, open_store
from pipelines.backends.findings import Finding
from pipelines.plan import Plan
from pipelines.runs.artifacts import StoredArtifacts
from pipelines.runs.folder import Run
from pipelines.runs.history import Row
from pipelines.runs.logs import Event, Follower, StepLog
from pipelines.runs.progress import Display

POD_SECONDS = 90.0  # that a pod of the doctor may take


@dataclass(frozen=True)
class Settings:
    """What a user says of where things run; each backend takes what concerns it.

    Attributes:
        cluster: `KEY=VALUE` or `@FILE`, as given to `--cluster`.
        jobs: Steps at a time, on a cluster those on GPUs; as many as there is room for by default.
    """

    cluster: tuple[str, ...] = ()
    jobs: int | None = None


@dataclass(frozen=True)
class Request:
    """What is to be run, and how.

    Attributes:
        plan: What to run.
        data: Where the mounted data sets are, by name: a folder, a persistent volume claim.
        parameters: What the compiled plan takes for each run, by name.
        source: The run of which this one runs steps again.
        resume: The step that goes on from the last checkpoint of the source's.
        new: Whether an unfinished run of the same plan is left as it is.
        reuse: Whether steps may take over what earlier runs have made.
        checks: Whether the backend is checked before anything is spent.
    """

    plan: Plan
    data: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    source: Run | None = None
    resume: str | None = None
    new: bool = False
    reuse: bool = True
    checks: bool = True


@dataclass(frozen=True)
class Checkup:
    """What is looked at before anything is spent.

    Attributes:
        plan: What is to run; without one only the backend itself is looked at.
        data: Where the mounted data sets are, by name.
        parameters: Values of the compiled plan's parameters.
        run: Where this one is executed is looked at.
        pod_seconds: How long each pod may take that looks from inside; None starts none.
    """

    plan: Plan | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    run: Run | None = None
    pod_seconds: float | None = None


@dataclass(frozen=True)
class Whereabouts:
    """Where a run is executed, for people.

    Attributes:
        place: In a word, for a list of runs.
        lines: All that helps to find it there.
    """

    place: str
    lines: tuple[str, ...] = ()


class Backend(ABC):
    """Makes runs of plans.

    Attributes:
        pause: Seconds between two looks at a run: after a change, and at most.

    Raises:
        ClusterError, StoreError: by every method, if what it asks cannot be reached or refuses.
    """

    pause: ClassVar[tuple[float, float]] = (2.0, 10.0)

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abstractmethod
    def start(self, request: Request, display: Display) -> Run:
        """Begin a run, or go on with one that did not finish.

        Returns:
            The run: over, if this process executes it; else as soon as it has begun.

        Raises:
            UsageError, ConfigError, DataError: naming all that can be known to be wrong, before
                anything is spent.
        """

    @abstractmethod
    def retry(self, run: Run, display: Display) -> None:
        """Try again what failed in a run, and keep the rest; returns as `start` does.

        Raises:
            UsageError: if nothing in it can be tried again.
        """

    @abstractmethod
    def cancel(self, run: Run) -> str:
        """Stop a run, and say what becomes of it and how to go on.

        Raises:
            UsageError: if it does not go on.
        """

    @abstractmethod
    def refresh(self, run: Run) -> None:
        """Write down what became of a run and its steps since they were last heard of."""

    @abstractmethod
    def progress(self, run: Run) -> Iterable[tuple[str, Event]]:
        """Return what the steps that run have said lately, their newest progress above all."""

    @abstractmethod
    def logs(self, run: Run, steps: Sequence[str]) -> Iterator[tuple[str, StepLog]]:
        """Yield what is left of what steps said."""

    @abstractmethod
    def follow(self, run: Run, steps: Sequence[str]) -> Follower:
        """Follow what steps say."""

    @abstractmethod
    def artifacts(self, run: Run) -> StoredArtifacts:
        """Return every finished artifact of a run, by step and port."""

    @abstractmethod
    def doctor(self, checkup: Checkup) -> Iterator[Finding]:
        """Check what keeps it from running a plan; yield what is found as soon as it is."""

    def history(self, run: Run, step: str) -> Sequence[Row]:
        """Return what a training that is under way has recorded, where its files are not at hand.

        Rows of figures by name, with `step`; up to its last checkpoint.
        """
        return ()

    def whereabouts(self, run: Run) -> Whereabouts:
        """Say where a run is executed; nobody is asked for that."""
        return Whereabouts(run.record.backend)

    def parts(self, plan: Plan) -> int:
        """Say into how many parts it would cut a run of a plan; about, where only trying tells."""
        return 1

    def store(self, url: str, run: Run) -> Store:
        """Open the store behind a URL that a run reads."""
        return open_store(url)

    def earlier(self, plan: Plan) -> list[tuple[Run, StoredArtifacts]]:
        """Return the runs whose artifacts a run of a plan can take over by name, the oldest first.

        A backend that finds out by itself what exists already has none.
        """
        return []

    def facts(self) -> dict[str, Any]:
        """Return how it is set up, after `doctor` has looked; for the report of a fault."""
        return {}

    def secrets(self) -> list[str]:
        """Return values that nobody may be shown, after `doctor` has looked."""
        return []
