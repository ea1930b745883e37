"""Cuts a plan whose workflow would be too large into parts that a cluster takes, by its own graph.

What several tables need comes first, then the tables, row by row and trial by trial, then what
needs all of them. A part reads of earlier parts only, and takes what it reads by URI: it begins
when that is there.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipelines.backends.kubeflow.names import task_name
from pipelines.backends.kubeflow.parameters import existing_parameters
from pipelines.backends.kubeflow.weights import Weights
from pipelines.plan import Existing, Output, Plan, Source
from pipelines.tables import filled_cells, report_steps

_READ = 600
"""Bytes that an input from another part adds: a parameter of the pipeline and of the task."""


@dataclass(frozen=True)
class Cut:
    """A part of a plan.

    Attributes:
        plan: Its steps; what it reads of other parts is an existing artifact.
        reads: What each of the parameters for those artifacts stands for.
    """

    plan: Plan
    reads: Mapping[str, Output]


def cut_plan(
    plan: Plan, weights: Weights, room: int, root: str, most: int | None = None
) -> list[Cut]:
    """Cut a plan into as few parts as its graph makes easy, in an order in which they can begin.

    Args:
        plan: The plan.
        weights: Of its workflow.
        room: Bytes that the workflow of a part may have. A step, or the steps that lead to one
            cell, may be larger by themselves.
        root: URL below which the artifacts of other parts are thought to be: `STEP/PORT`.
        most: Steps on GPUs that a part may have, with the same exception.
    """

    def fits(steps: Sequence[str]) -> bool:
        if most is not None and len(on_gpus(plan, steps)) > most:
            return False
        return _size(plan, weights, steps) <= room

    parts = _packed(plan, fits)
    numbers = {step: number for number, steps in enumerate(parts) for step in steps}
    return [_cut(plan, steps, numbers, root) for steps in parts]


def on_gpus(plan: Plan, steps: Iterable[str]) -> set[str]:
    """Return those of some steps whose stage wants GPUs, at whatever scale."""
    return {step for step in steps if plan.steps[step].stage.resources.gpus}


def _packed(plan: Plan, fits: Callable[[Sequence[str]], bool]) -> list[list[str]]:
    """Put the steps into parts, each as full as can be."""
    parts: list[list[str]] = []
    for group in _groups(plan):
        current: list[str] = []  # what needs all others does not wait beside what does not
        for unit in group:
            grown = [*current, *unit]
            if current and not fits(grown):
                parts.append(current)
                grown = unit
            current = grown
        if current:
            parts.append(current)
    order = {name: number for number, name in enumerate(plan.steps)}
    return [sorted(part, key=order.__getitem__) for part in parts]


def _size(plan: Plan, weights: Weights, steps: Sequence[str]) -> int:
    here = {*steps}
    sources = (source for step in steps for _, source in plan.steps[step].sources())
    read = {source for source in sources if isinstance(source, Output) and source.step not in here}
    return weights.of(map(task_name, steps)) + len(read) * _READ


def _groups(plan: Plan) -> Iterator[list[list[str]]]:
    """Yield groups of units of steps; what is before a unit is all that it reads from."""
    cells = {_place(key): output.step for key, output in filled_cells(plan).items()}
    needed = {place: _ancestors(plan, step) for place, step in cells.items()}
    tables: dict[str, set[str]] = {}
    for (table, *_), steps in needed.items():
        for step in steps:
            tables.setdefault(step, set()).add(table)
    after = _after(plan, {*cells.values()}) - tables.keys()
    shared = [step for step in plan.steps if step not in after and len(tables.get(step, ())) != 1]
    placed = set(shared)
    units = [[step] for step in shared]
    for place in _in_order(needed):
        if unit := [step for step in plan.steps if step in needed[place] - placed]:
            units.append(unit)
            placed |= {*unit}
    yield units
    yield [[step] for step in plan.steps if step in after]


def _place(cell: str) -> tuple[str, ...]:
    """Return table, row, column and trial of a cell, or of a figure what names it."""
    return tuple(cell.split("__"))


def _in_order(places: Mapping[tuple[str, ...], object]) -> list[tuple[str, ...]]:
    """Order cells by table, row, trial: what is cut first comes first; each as it first appears."""
    first: dict[tuple[str, ...], int] = {}
    for number, place in enumerate(places):
        for length in (1, 2):
            first.setdefault(place[:length], number)

    def key(place: tuple[str, ...]) -> tuple[int, int, int]:
        trial = int(place[-1]) if place[-1].isdecimal() else 0
        return first[place[:1]], first[place[:2]], trial

    return sorted(places, key=key)


def _ancestors(plan: Plan, step: str) -> set[str]:
    """Return a step and all that it needs."""
    reached, pending = {step}, [step]
    while pending:
        fresh = plan.steps[pending.pop()].upstream - reached
        reached |= fresh
        pending += fresh
    return reached


def _after(plan: Plan, steps: set[str]) -> set[str]:
    """Return the reports, and all else that needs any of some steps."""
    reached = {step.name for step in report_steps(plan)}
    for step in plan:
        if step.upstream & (reached | steps):
            reached.add(step.name)
    return reached


def _cut(plan: Plan, steps: Sequence[str], numbers: Mapping[str, int], root: str) -> Cut:
    part = Plan(plan.name, plan.scale)
    taken: dict[Existing, Output] = {}

    def source_of(source: Source) -> Source:
        if not isinstance(source, Output) or source.step in part.steps:
            return source
        uri = f"{root}/{task_name(source.step)}/{source.port}"
        taken[existing := Existing(uri, source.kind, by_uri=True)] = source
        return existing

    for step in map(plan.steps.__getitem__, steps):
        part.add(step.stage, step.name, step.config, **step.rebound(source_of))
    names = existing_parameters(part)
    return Cut(part, {names[existing]: output for existing, output in taken.items()})
