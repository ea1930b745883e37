"""Plans one report over what several runs measured."""

import hashlib
import json
from collections.abc import Mapping, Sequence

from components.core.errors import UsageError
from components.core.manifest import Manifest, read_manifest
from components.report import STAGE as REPORT
from components.report import Column, ReportConfig, Row, Table
from pipelines.plan import Existing, Plan, Source
from pipelines.runs.cells import Cell, cells_of, report_config_of
from pipelines.runs.folder import Run
from pipelines.runs.under_way import UnderWay


def report_plan(runs: Sequence[Run], under_way: Sequence[UnderWay] = ()) -> Plan:
    """Plan one report over what several runs measured, and over what runs.

    Tables of the same key become one, with the rows and columns of all. A trial
    that several runs measured (the same stage, config and inputs: the same seed)
    counts once, as the newest run has it. Measurements that differ in any of these
    and would stand in the same place, as when two runs each did their first trial
    with pre-trainings of their own, become further trials.

    Raises:
        UsageError: if the runs are of different scales, none of them fills a cell, or they call
            different data by one name.
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
    if not trials and not under_way:
        names = ", ".join(run.id for run in runs)
        raise UsageError(f"nothing is measured in {names}: `moco status` shows how far they are")
    metrics: dict[str, Source] = {}
    for place, cells in trials.items():
        for trial, cell in _slots(list(cells.values())).items():
            metrics[f"{place}__{trial}"] = Existing(str(cell.artifact), "Metrics")
    scale = next(iter(scales))
    config = _merged(runs, scale, metrics)
    figures = (figure for training in under_way for figure in training.figures())
    config = config.model_copy(update={"figures": (*figures, *config.figures)})
    metrics |= {training.key: training.write() for training in under_way}
    plan = Plan("report", scale)
    plan.add(REPORT, "report", config, metrics=metrics)
    return plan


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
        if known.section != table.section:
            raise UsageError(
                f"{table.key} is of {known.section} in one run, and of {table.section} in another: "
                "one table cannot hold both; give the columns names of their own"
            )
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
