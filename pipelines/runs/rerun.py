"""Plans steps of a run again, on the same inputs."""

from collections.abc import Mapping, Sequence

from components.core.errors import DataError
from pipelines.plan import Existing, Output, Plan, Source
from pipelines.runs.artifacts import Urls
from pipelines.runs.folder import Run


def rerun_plan(run: Run, name: str, made: Urls, downstream: bool = False) -> Plan:
    """Plan one step of a run again, or it and all that depend on it.

    What the steps read of others becomes an existing artifact: that of the run.

    Args:
        run: The run.
        name: The step.
        made: Where the finished artifacts of the run are, by step and port.
        downstream: Whether all that depend on it run too.

    Raises:
        UsageError: if the run has no such step, naming the nearest.
        DataError: if an artifact that is needed was never made.
    """
    run.require_step(name)
    return plan_again(run, run.plan.downstream(name) if downstream else [name], made)


def plan_again(run: Run, again: Sequence[str], made: Urls, *, by_uri: bool = False) -> Plan:
    """Plan some steps of a run again; what they read of others is what the run has made.

    Args:
        run: The run.
        again: The steps, in the plan's order.
        made: Where the finished artifacts of the run are, by step and port.
        by_uri: Whether steps fetch those themselves.

    Raises:
        DataError: if an artifact that is needed was never made.
    """
    before = run.plan
    plan = Plan(before.name, before.scale)
    faults: list[str] = []
    for step in map(before.step, again):
        inputs: dict[str, Source | dict[str, Source]] = {}
        for port, bound in step.inputs.items():
            if isinstance(bound, Mapping):
                members = {key: _taken(plan, source, made, by_uri) for key, source in bound.items()}
                inputs[port] = {key: source for key, source in members.items() if source}
            elif source := _taken(plan, bound, made, by_uri):
                inputs[port] = source
            else:
                assert isinstance(bound, Output)
                faults.append(
                    f"{step.name} reads {bound.port} of {bound.step}, which is "
                    f"{run.status(bound.step).state} in run {run.id}: "
                    f"`moco rerun {run.id} {bound.step} --downstream` makes it first"
                )
        if not faults:
            plan.add(step.stage, step.name, step.config, **inputs)
    if faults:
        raise DataError("\n".join(faults))
    return plan


def _taken(plan: Plan, source: Source, made: Urls, by_uri: bool) -> Source | None:
    """Return a source of the rerun: a step of it, an artifact of the run, or nothing."""
    if not isinstance(source, Output) or source.step in plan.steps:
        return source
    url = made.get((source.step, source.port))
    return Existing(url, source.kind, by_uri) if url else None
