"""Says before anything is spent what of a plan will run, what is reused, and what it may cost."""

import statistics
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Literal

from components.core.gpus import Gpus
from components.core.kind import ArtifactKind
from pipelines.backends.local.machine import Machine
from pipelines.backends.local.reuse import ReuseEntry, ReuseIndex, ingredients_of
from pipelines.backends.local.sources import Sources
from pipelines.plan import Existing, Mounted, Output, Plan, Step

MADE: Mapping[ArtifactKind, int] = {
    "Model": 100_000_000,  # a ResNet-50 in fp32
    "Metrics": 1_000_000,
    "Report": 3_000_000,
    "HTML": 3_000_000,
}
"""Bytes of an artifact at full scale, before one was measured; a data set's nobody can guess."""
ENCODERS = ("backbone", "checkpoint")
"""Inputs with an encoder in them."""


@dataclass(frozen=True)
class Estimate:
    """What a step may cost, and how that is known.

    Attributes:
        seconds: Wall time on this machine.
        gpu_hours: GPUs times hours.
        size: Bytes of its outputs.
        basis: In words.
    """

    seconds: float | None
    gpu_hours: float | None
    size: int | None
    basis: str


@dataclass(frozen=True)
class Forecast:
    """What will become of a step.

    Attributes:
        action: Whether it runs.
        why: Where its artifacts are, or why it has to run.
        estimate: What it may cost if it runs.
    """

    action: Literal["run", "reuse"]
    why: str
    estimate: Estimate


def forecast(
    plan: Plan, sources: Sources, machine: Machine, index: ReuseIndex
) -> dict[str, Forecast]:
    """Say for every step, in order, whether it will run, and why."""
    forecasts: dict[str, Forecast] = {}
    outputs: dict[str, Mapping[str, str]] = {}  # digests of what is reused
    costs = encoder_costs(plan, sources)
    for step in plan:
        estimate = estimate_step(step, plan.scale, machine, index, costs[step.name])
        if waits := _waits_for(step, sources, outputs):
            forecasts[step.name] = Forecast("run", waits, estimate)
            continue
        ingredients = ingredients_of(
            step,
            {
                name: outputs[source.step][source.port]
                if isinstance(source, Output)
                else sources.digest(source)
                for name, source in step.sources()
            },
        )
        made = index.find(ingredients, step)
        if made:
            run, name = made
            outputs[step.name] = index.digests(ingredients)
            forecasts[step.name] = Forecast("reuse", f"{run.id}/{name}", estimate)
        else:
            forecasts[step.name] = Forecast("run", index.why_not(ingredients, step.name), estimate)
    return forecasts


def encoder_costs(plan: Plan, sources: Sources) -> dict[str, float]:
    """Say for every step how many times a ResNet-50's multiplications its encoder takes."""
    costs: dict[str, float] = {}
    for step in plan:
        given = {
            port: sources.path(source)
            for port, source in step.sources()
            if isinstance(source, Existing) and port in ENCODERS
        }
        cost = step.config.encoder_cost(given)
        if cost is None:
            read = [s for p, s in step.sources() if p in ENCODERS and isinstance(s, Output)]
            cost = costs[read[0].step] if read else 1.0
        costs[step.name] = cost
    return costs


def estimate_step(
    step: Step, scale: str, machine: Machine, index: ReuseIndex, cost: float = 1.0
) -> Estimate:
    """Estimate a step by earlier runs of its stage at the same scale, else by what its config says.

    That is what the work takes on GPUs of a kind that was measured, or took the paper's authors.

    Args:
        step: The step.
        scale: Of its plan.
        machine: Where it would run.
        index: What has run there.
        cost: How many times a ResNet-50's multiplications its encoder takes. What a config
            says is of a ResNet-50, if it is not of an encoder of its own.
    """
    gpus = machine.gpus_for(step.stage.resources, scale)
    config = step.config.model_dump(mode="json")
    entries = [entry for entry in index.entries(step.stage.name) if entry.scale == scale]
    same = [entry for entry in entries if entry.ingredients.config == config]
    if same or entries:
        seconds = statistics.fmean(entry.seconds for entry in same or entries)
        size = round(statistics.fmean(entry.size for entry in same or entries))
        basis = "measured" if same else f"other runs of {step.stage.name}"
        return Estimate(seconds, _gpu_hours(same or entries), size, basis)
    expected = _expected_size(step) if scale == "full" else None
    cards = Gpus(machine.gpu_name, max(1, gpus))
    hours = step.config.gpu_hours(cards)
    if hours is not None and "backbone" in step.inputs:
        hours *= cost
    if hours is None or scale != "full":
        trains = gpus or (step.stage.resources.gpus and scale == "full")
        return Estimate(None, None if trains else 0.0, expected, "unknown")
    basis = f"of {cards.known}s, as measured on one" if cards.known else "of V100s, as published"
    return Estimate(hours * 3600 / gpus if gpus else None, hours, expected, basis)


def remaining_seconds(plan: Plan, estimates: Mapping[str, Estimate]) -> dict[str, float]:
    """Return for each step how long the longest way from its start to the end is.

    A step of unknown duration counts as an average one of those that need a GPU as it does, or
    do not: a conversion is no eighth of a pre-training.
    """
    known: dict[bool, list[float]] = {True: [], False: []}
    for step in plan:
        if (seconds := estimates[step.name].seconds) is not None:
            known[step.stage.resources.gpus > 0].append(seconds)
    usual = {needs: statistics.fmean(known[needs] or [1.0]) for needs in known}
    remaining: dict[str, float] = {}
    for step in reversed(list(plan)):
        after = (remaining[later.name] for later in plan if step.name in later.upstream)
        seconds = estimates[step.name].seconds
        if seconds is None:
            seconds = usual[step.stage.resources.gpus > 0]
        remaining[step.name] = seconds + max(after, default=0.0)
    return remaining


def wall_seconds(plan: Plan, forecasts: Mapping[str, Forecast], machine: Machine) -> float | None:
    """Estimate how long the steps that run take together; None if none of them is known."""
    running = {name: f.estimate for name, f in forecasts.items() if f.action == "run"}
    if not any(estimate.seconds is not None for estimate in running.values()):
        return None if running else 0.0
    nothing = Estimate(0.0, 0.0, 0, "")
    remaining = remaining_seconds(plan, {s.name: running.get(s.name, nothing) for s in plan})
    total = sum(estimate.seconds or 0.0 for estimate in running.values())
    gpu_hours = sum(estimate.gpu_hours or 0.0 for estimate in running.values())
    of_gpus = gpu_hours * 3600 / len(machine.gpus) if machine.gpus else 0.0
    return max(*remaining.values(), total / machine.jobs, of_gpus)


def _waits_for(step: Step, sources: Sources, made: Container[str]) -> str:
    """Say what a step reads that is made anew, so that whether it runs cannot be known yet."""
    for _, source in step.sources():
        if isinstance(source, Mounted) and source.name not in sources.mounts:
            return f"the data set {source.name} is not given"
        if isinstance(source, Existing) and source.uri not in sources.existing:
            return f"{source.uri} is fetched when it runs"
    anew = [name for name in sorted(step.upstream) if name not in made]
    more = f" and {len(anew) - 1} more" if len(anew) > 1 else ""
    return f"reads what {anew[0]}{more} will make" if anew else ""


def _gpu_hours(entries: list[ReuseEntry]) -> float:
    return statistics.fmean(entry.seconds * entry.gpus / 3600 for entry in entries)


def _expected_size(step: Step) -> int | None:
    kinds = [port.kind for port in step.stage.outputs.values()]
    return None if any(kind not in MADE for kind in kinds) else sum(MADE[kind] for kind in kinds)
