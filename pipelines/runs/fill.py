"""Plans what the empty cells of a report need, and nothing that earlier runs have made."""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping

from components.report import STAGE as REPORT
from pipelines.plan import Existing, Output, Plan, Source
from pipelines.runs.artifacts import Urls
from pipelines.runs.folder import Run
from pipelines.tables import filled_cells


def fill_plan(plan: Plan, earlier: Iterable[tuple[Run, Urls]]) -> Plan:
    """Plan only what the empty cells of a plan's report need.

    What earlier runs made of the same stage, config and inputs becomes an existing artifact,
    whatever code made it; the report is made anew over all cells.

    Args:
        plan: The whole plan.
        earlier: Runs and where their finished artifacts lie, the oldest first.

    Returns:
        The plan; without steps if no cell is empty.
    """
    made: dict[str, str] = {}
    origins: dict[str, str] = {}
    for run, urls in earlier:
        for output, digest in _digests(run.plan, origins).items():
            if output in urls:
                made[digest] = urls[output]
                origins[urls[output]] = digest
    wanted = _digests(plan, origins)
    needed = _needed(plan, {port for port, digest in wanted.items() if digest in made})
    filling = Plan(plan.name, plan.scale)
    if not needed:
        return filling

    def taken(source: Source) -> Source:
        if isinstance(source, Output) and source.step not in filling.steps:
            return Existing(made[wanted[source.step, source.port]], source.kind)
        return source

    for step in plan:
        if step.name in needed or step.stage is REPORT:
            filling.add(step.stage, step.name, step.config, **step.rebound(taken))
    return filling


def _needed(plan: Plan, made: Collection[tuple[str, str]]) -> set[str]:
    """Return the steps that the empty cells need, given the outputs that exist."""
    pending = [cell for cell in filled_cells(plan).values() if (cell.step, cell.port) not in made]
    needed: set[str] = set()
    while pending:
        output = pending.pop()
        if output.step not in needed:
            needed.add(output.step)
            sources = (source for _, source in plan.step(output.step).sources())
            pending += [
                source
                for source in sources
                if isinstance(source, Output) and (source.step, source.port) not in made
            ]
    return needed


def _digests(plan: Plan, origins: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """Identify every output of a plan by all that leads to it, whatever the steps are called.

    Args:
        plan: The plan.
        origins: Identities of artifacts that exist, by URL.
    """
    digests: dict[tuple[str, str], str] = {}

    def identity(source: Source) -> str:
        if isinstance(source, Output):
            return digests[source.step, source.port]
        if isinstance(source, Existing):
            return origins.get(source.uri, source.uri)
        return f"mounted {source.name}"

    for step in plan:
        inputs = {port: identity(source) for port, source in step.sources()}
        for port in step.stage.outputs:
            facts = [step.stage.name, port, step.config.to_json(), inputs]
            text = json.dumps(facts, sort_keys=True)
            digests[step.name, port] = hashlib.sha256(text.encode()).hexdigest()
    return digests
