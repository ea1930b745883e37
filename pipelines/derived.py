"""Plans that come from runs: one stage again on the same inputs, one report over several runs."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence

from components.core.errors import DataError, UsageError
from components.core.manifest import Manifest, read_manifest
from components.report import STAGE as REPORT
from components.report import Column, ReportConfig, Row, Table
from pipelines.cells import Cell, cells_of, report_config_of
from pipelines.plan import Existing, Output, Plan, Source
from pipelines.runs import DONE, Run
from pipelines.tables import filled_cells

Places = Mapping[tuple[str, str], str]
"""URLs of a submitted run's finished artifacts, by step and port."""


def rerun_plan(run: Run, name: str, downstream: bool = False, places: Places | None = None) -> Plan:
    """Plan one step of a run again, or it and all that depend on it.

    What the steps read of others becomes an existing artifact: that of the run.

    Args:
        run: The run.
        name: The step.
        downstream: Whether all that depend on it run too.
        places: Where a submitted run's artifacts are; those of a local run are in its folder.

    Raises:
        UsageError: if the run has no such step, naming the nearest.
        DataError: if an artifact that is needed was never made.
    """
    before = run.plan
    run.require_step(name)
    again = before.downstream(name) if downstream else [name]
    plan = Plan(before.name, before.scale)
    faults: list[str] = []
    for step in map(before.step, again):
        inputs: dict[str, Source | dict[str, Source]] = {}
        for port, bound in step.inputs.items():
            if isinstance(bound, Mapping):
                members = {key: _taken(run, plan, source, places) for key, source in bound.items()}
                inputs[port] = {key: source for key, source in members.items() if source}
            elif source := _taken(run, plan, bound, places):
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


def report_plan(runs: Sequence[Run]) -> Plan:
    """Plan one report over what several runs measured.

    Tables of the same key become one, with the rows and columns of all. A trial
    that several runs measured (the same stage, config and inputs: the same seed)
    counts once, as the newest run has it. Measurements that differ in any of these
    and would stand in the same place, as when two runs each did their first trial
    with pre-trainings of their own, become further trials.

    Raises:
        UsageError: if the runs are of different scales, or none of them fills a cell.
    """
    scales = {run.record.scale: run.id for run in runs}
    if len(scales) > 1:
        shown = ", ".join(f"{run} is of scale {scale}" for scale, run in scales.items())
        raise UsageError(f"one report cannot mix scales: {shown}")
    trials: dict[str, dict[str, Cell]] = {}  # place -> identity -> cell
    for run in sorted(runs, key=lambda run: run.record.created):
        for key, cell in cells_of(run).items():
            if cell.is_there:
                identity = _identity(read_manifest(cell.artifact))
                trials.setdefault(key.rpartition("__")[0], {})[identity] = cell
    if not trials:
        names = ", ".join(run.id for run in runs)
        raise UsageError(f"nothing is measured in {names}: `moco status` shows how far they are")
    metrics: dict[str, Source] = {}
    for place, cells in trials.items():
        for trial, cell in _slots(list(cells.values())).items():
            metrics[f"{place}__{trial}"] = Existing(str(cell.artifact), "Metrics")
    scale = next(iter(scales))
    plan = Plan("report", scale)
    plan.add(REPORT, "report", _merged(runs, scale, metrics), metrics=metrics)
    return plan


def fill_plan(plan: Plan, earlier: Sequence[tuple[Run, Places]]) -> Plan:
    """Plan only what the empty cells of a plan's report need.

    What earlier runs made of the same stage, config and inputs becomes an existing artifact,
    whatever code made it; the report is made anew over all cells.

    Args:
        plan: The whole plan.
        earlier: Submitted runs and where their artifacts are, the oldest first.

    Returns:
        The plan; without steps if no cell is empty.
    """
    made: dict[str, str] = {}
    origins: dict[str, str] = {}
    for run, places in earlier:
        for port, digest in _digests(run.plan, origins).items():
            if port in places:
                made[digest] = places[port]
                origins[places[port]] = digest
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
            inputs = {
                port: {key: taken(one) for key, one in bound.items()}
                if isinstance(bound, Mapping)
                else taken(bound)
                for port, bound in step.inputs.items()
            }
            filling.add(step.stage, step.name, step.config, **inputs)
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
    found: dict[tuple[str, str], str] = {}

    def identity(source: Source) -> str:
        if isinstance(source, Output):
            return found[source.step, source.port]
        if isinstance(source, Existing):
            return origins.get(source.uri, source.uri)
        return f"mounted {source.name}"

    for step in plan:
        inputs = {port: identity(source) for port, source in step.sources()}
        for port in step.stage.outputs:
            facts = [step.stage.name, port, step.config.to_json(), inputs]
            text = json.dumps(facts, sort_keys=True)
            found[step.name, port] = hashlib.sha256(text.encode()).hexdigest()
    return found


def _taken(run: Run, plan: Plan, source: Source, places: Places | None) -> Source | None:
    """Return a source of the rerun: a step of it, an artifact of the run, or nothing."""
    if not isinstance(source, Output) or source.step in plan.steps:
        return source
    if places is not None:
        url = places.get((source.step, source.port))
        return Existing(url, source.kind) if url else None
    if run.status(source.step).state not in DONE:
        return None
    return Existing(str(run.artifact(source.step, source.port, source.kind)), source.kind)


def _identity(manifest: Manifest) -> str:
    """Identify what was measured, whatever code measured it."""
    inputs = {name: lineage.digest or lineage.name for name, lineage in manifest.inputs.items()}
    text = json.dumps([manifest.stage, manifest.config, inputs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _slots(cells: Sequence[Cell]) -> dict[int, Cell]:
    """Give each measurement of one place its trial number, the next free one if it is taken."""
    slots: dict[int, Cell] = {}
    for cell in cells:
        trial = int(cell.key.rpartition("__")[2])
        while trial in slots:
            trial += 1
        slots[trial] = cell
    return slots


def _merged(runs: Sequence[Run], scale: str, metrics: Mapping[str, Source]) -> ReportConfig:
    configs = [report_config_of(run) for run in runs]
    tables: dict[str, Table] = {}
    for table in (table for config in configs for table in config.tables):
        known = tables.get(table.key, table)
        used = (int(key.rpartition("__")[2]) for key in metrics if key.startswith(f"{table.key}__"))
        tables[table.key] = known.model_copy(
            update={
                "rows": _rows(known.rows, table.rows),
                "columns": _columns(known.columns, table.columns),
                "published": tuple(dict.fromkeys((*known.published, *table.published))),
                "trials": max(known.trials, table.trials, *(trial + 1 for trial in used)),
            }
        )
    figures = {figure.key: figure for config in configs for figure in config.figures}
    merged = ReportConfig(
        scale=scale, tables=tuple(tables.values()), figures=tuple(figures.values())
    )
    titles = {config.title for config in configs}
    return merged.model_copy(update={"title": titles.pop()}) if len(titles) == 1 else merged


def _rows(known: Sequence[Row], more: Sequence[Row]) -> tuple[Row, ...]:
    """Join rows; one that can be had takes the place of the same that cannot."""
    rows = {row.key: row for row in known}
    for row in more:
        if row.key not in rows or rows[row.key].unobtainable:
            rows[row.key] = row
    return tuple(rows.values())


def _columns(known: Sequence[Column], more: Sequence[Column]) -> tuple[Column, ...]:
    return tuple({column.key: column for column in (*known, *more)}.values())
