"""Begins the parts of a run that was cut, each when all that it reads is there or never will be.

It may be done by several at once, in the cluster and outside, and again after it broke off: what
has begun stands in the store, and a part's run has a name that no other has.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from components.core.store import Store
from pipelines.backends.kubeflow.artifacts import find_artifacts
from pipelines.backends.kubeflow.connection import Cluster
from pipelines.backends.kubeflow.cut import on_gpus
from pipelines.backends.kubeflow.names import task_name
from pipelines.backends.kubeflow.parameters import RUN
from pipelines.backends.kubeflow.parts import Begun, Part, StepPlaces, StoredParts
from pipelines.backends.kubeflow.prune import prune
from pipelines.backends.kubeflow.record import ClusterRun
from pipelines.backends.kubeflow.server import Server
from pipelines.backends.kubeflow.workflow import Task
from pipelines.plan import Output, Plan
from pipelines.runs.artifacts import Urls, urls_of
from pipelines.runs.folder import Run
from pipelines.runs.record import DONE, LOST, StepStatus
from pipelines.words import number


@dataclass(frozen=True)
class Look:
    """How the steps of a run go that was cut.

    Attributes:
        plan: Of the run.
        places: Where its steps are executed.
        over: Which of its parts have ended, by number.
        tasks: What is said of the steps that have been begun.
    """

    plan: Plan
    places: StepPlaces
    over: frozenset[int]
    tasks: Mapping[str, Task]

    @cached_property
    def settled(self) -> frozenset[str]:
        """Steps that are over, and those that will never begin, for what they read is not made."""
        settled: set[str] = set()
        lost = set(self.places.left_out)
        for step in self.plan:
            state = self.tasks.get(step.name, Task("waiting")).state
            if state in DONE:
                settled.add(step.name)
            elif state in LOST or step.upstream & lost or step.name in self._of_ended_parts:
                lost.add(step.name)
        return frozenset(settled | lost)

    @cached_property
    def _of_ended_parts(self) -> frozenset[str]:
        """Steps of parts that have ended, whatever is said of them."""
        ended = {place.run for part, place in self.places.runs.items() if part in self.over}
        return frozenset(step for step, place in self.places.of.items() if place.run in ended)


@dataclass
class Advance:
    """Begins what can begin of one run.

    Attributes:
        run: The run, as its folder on this machine tells it.
        cluster: Where it is executed.
        tell: Told of what has begun.
    """

    run: Run
    cluster: Cluster
    tell: Callable[[str], object] = str
    _ended: dict[str, Mapping[str, Task]] = field(default_factory=dict)

    @cached_property
    def place(self) -> ClusterRun:
        """Where the run is executed."""
        return ClusterRun.of(self.run)

    @cached_property
    def store(self) -> Store:
        """The store of the pipeline's runs."""
        return self.cluster.store(self.place.store)

    @cached_property
    def parts(self) -> StoredParts:
        """The run's parts."""
        return StoredParts(self.store, self.place.run)

    def look(self, at: int | None = None) -> Look:
        """Ask how the steps go.

        Args:
            at: The part that is asked for; all by default.

        Raises:
            ClusterError, StoreError: if server or store cannot be reached or refuse.
        """
        places = self.parts.places(self.place)
        over = set()
        told: dict[str, Mapping[str, Task]] = {}
        for part, place in places.runs.items():
            if at not in (None, part):
                continue
            if place.run not in self._ended:
                known = Server(self.cluster).told(place)
                told[place.run] = known.tasks
                if known.state != "running":
                    self._ended[place.run] = told[place.run]
            if place.run in self._ended:
                over.add(part)
                told[place.run] = self._ended[place.run]
        tasks = {
            step: told[place.run][name]
            for step, place in places.of.items()
            if (name := task_name(step)) in told.get(place.run, ())
        }
        return Look(self.run.plan, places, frozenset(over), tasks)

    def begin(self, at: int | None = None) -> Look:
        """Begin every part that can begin, and return how the steps went before.

        Args:
            at: The part that is looked at first: the others are asked for only if one that reads
                of this could begin.

        Raises:
            ClusterError, StoreError: if server or store cannot be reached or refuse.
        """
        parallel = self.parts.given.parallel
        if at is not None and parallel is None:
            look = self.look(at)
            if not self._may_begin(look, at):
                return look
        while True:
            look = self.look()
            ready = [
                part
                for part, begun in look.places.parts.values()
                if begun is None and {step for step, _ in part.reads.values()} <= look.settled
            ]
            if parallel:  # one at a time: others begin the same one, or see this one
                ready = [part for part in ready if self._has_room(look, part, parallel)][:1]
            if not ready or self.parts.cancelled:
                return look
            made = self._made(look) if any(part.reads for part in ready) else {}
            for part in ready:
                self._begin(part, made)

    def _may_begin(self, look: Look, at: int) -> bool:
        """Say whether all that a part waits for in one other is there."""
        if at not in look.places.runs:
            return True
        mine = {*look.places.parts[at][0].steps}
        waiting = (part for part, begun in look.places.parts.values() if begun is None)
        read = ({step for step, _ in part.reads.values()} & mine for part in waiting)
        return any(steps and steps <= look.settled for steps in read)

    def _has_room(self, look: Look, part: Part, parallel: int) -> bool:
        """Say whether the steps on GPUs of a part may run beside those that are not over."""
        busy = on_gpus(look.plan, look.places.of.keys() - look.settled)
        return not busy or len(busy | on_gpus(look.plan, part.steps)) <= parallel

    def _made(self, look: Look) -> Urls:
        """Return where the artifacts are that the run has made."""
        for step, task in look.tasks.items():
            if self.run.status(step).state != task.state:
                # What failed is not looked for among the outputs of earlier runs.
                self.run.write_status(step, StepStatus(state=task.state))
        return urls_of(find_artifacts(self.run, self.store, self.cluster.store))

    def _begin(self, part: Part, made: Urls) -> None:
        left_out = self._left_out(part, made)
        if len(left_out) == len(part.steps):
            self.tell(f"nothing of part {part.number} can run: what it reads was not made")
            self.parts.begin(part.number, Begun(run=None, left_out=left_out))
            return
        server = Server(self.cluster)
        mine = server.named(part.name) or self._start(server, part, made, left_out)
        begun = self.parts.begin(part.number, Begun(run=mine, left_out=left_out))
        if begun.run != mine or self.parts.cancelled:
            server.terminate(self.place.part(mine))
        else:
            without = f" without {number(len(left_out), 'step')}" if left_out else ""
            self.tell(f"part {part.number} has begun{without}: run {mine}")

    def _start(self, server: Server, part: Part, made: Urls, left_out: Sequence[str]) -> str:
        pipeline = self.parts.pipeline(part.number)
        if left_out:
            pipeline = prune(pipeline, [task_name(step) for step in left_out])
        uris = {name: made[output] for name, output in part.reads.items() if output in made}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, f"{self.place.pipeline}.yaml")
            file.write_text(pipeline, "utf-8")
            ids = server.upload(self.place.pipeline, file)
        parameters = {**part.parameters, **uris, RUN: self.place.artifacts}
        return server.start(part.name, *ids, parameters)

    def _left_out(self, part: Part, made: Urls) -> tuple[str, ...]:
        """Return the steps of a part that cannot run, and what depends on them."""
        lacking = {output for output in part.reads.values() if output not in made}
        left_out: set[str] = set()
        for step in map(self.run.plan.step, part.steps):
            sources = (source for _, source in step.sources())
            outputs = {(s.step, s.port) for s in sources if isinstance(s, Output)}
            if outputs & lacking or step.upstream & left_out:
                left_out.add(step.name)
        return tuple(name for name in part.steps if name in left_out)
