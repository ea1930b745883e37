"""How large the workflow of a run is: the cluster takes one only up to a size.

Everything here is known without Kubeflow Pipelines installed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipelines.backends.kubeflow.names import task_name
from pipelines.plan import Plan

OBJECT = 1_500_000
"""Bytes that an object of a cluster may have (etcd's limit of a request, 1.5 MiB)."""
_STEP = 10_500
"""Bytes of a step, about, with its share of the report: 10.5 to 11 kB in the paper's tables."""


@dataclass(frozen=True)
class Weights:
    """Estimated bytes of the workflow of a run at its end, by what a server made of others.

    On Kubeflow Pipelines 2.17 a workflow of 143 tasks had within a hundredth of this before its
    first one ran, the state aside, and one of 60 tasks had 4.7 kB of state a task at its end. Parts
    of 19 to 32 tasks had 235 to 287 kB, within 15 hundredths below this, and a report of 220 cells
    523 kB.

    Attributes:
        base: What it has beside its tasks.
        tasks: Of each task, by its name.
        shared: Of the description that each task uses, by its name: what that is called, and how
            large it is. It counts once, however many use it.
    """

    base: int
    tasks: Mapping[str, int]
    shared: Mapping[str, tuple[str, int]]

    def of(self, tasks: Iterable[str]) -> int:
        """Return the bytes of a workflow of these tasks."""
        chosen = list(tasks)
        shared = dict(self.shared[task] for task in chosen)
        return self.base + sum(self.tasks[task] for task in chosen) + sum(shared.values())

    @property
    def whole(self) -> int:
        """The bytes of the whole workflow."""
        return self.of(self.tasks)


def about(plan: Plan) -> Weights:
    """Guess how large the workflow of a plan would be, without compiling it."""
    tasks = dict.fromkeys(map(task_name, plan.steps), _STEP)
    return Weights(0, tasks, dict.fromkeys(tasks, ("", 0)))
