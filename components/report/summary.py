"""Computes the report as data: published beside measured, with the lineage of every number."""

import hashlib
import itertools
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.special import stdtrit

from components.core.manifest import Lineage
from components.core.metrics import Metrics
from components.report import Curve, Figure, Published, ReportConfig, Row, Table, Trend
from components.report.illustrations import illustrate
from components.report.measured import Measured
from components.report.results import (
    Artifact,
    CellResult,
    Comparison,
    CurveResult,
    FigureResult,
    Measurement,
    Report,
    RowOrder,
    RowResult,
    TableResult,
    Trial,
    Value,
)

CONVERTED = "convert.backbone"  # the output that says what the backbone is
DIGEST_CHARACTERS = 16  # of an artifact's key
ONE_TRIAL = (
    "Whether two rows differ by more than chance takes two trials of both, or more: --trials 5."
)


@dataclass(frozen=True)
class _Evidence:
    """A metrics artifact: what it holds, where it is from, and its key in the report."""

    metrics: Metrics
    lineage: Lineage
    artifact: str


def summarise(config: ReportConfig, measured: Mapping[str, Measured]) -> Report:
    """Put every measurement where it belongs.

    Args:
        config: The tables and figures.
        measured: Metrics artifacts by key; the order makes no difference.
    """
    artifacts: dict[str, Artifact] = {}
    evidence = {
        key: _Evidence(artifact.metrics, artifact.lineage, _register(artifact.lineage, artifacts))
        for key, artifact in sorted(measured.items())
    }
    comparable = config.scale == "full"
    tables = tuple(_table(table, evidence, measured, comparable) for table in config.tables)
    figures = tuple(_figure(figure, evidence, comparable) for figure in config.figures)
    used = {trial.key for t in tables for r in t.rows for cell in r.cells for trial in cell.trials}
    used |= {curve.cell for figure in config.figures for curve in figure.curves}
    unused = tuple(
        Measurement(key=key, values=_finite(piece.metrics.values), artifact=piece.artifact)
        for key, piece in evidence.items()
        if key not in used
    )
    return Report(
        title=config.title,
        scale=config.scale,
        tables=tables,
        figures=figures,
        others=unused,
        artifacts=dict(sorted(artifacts.items())),
    )


def _table(
    table: Table,
    evidence: Mapping[str, _Evidence],
    measured: Mapping[str, Measured],
    comparable: bool,
) -> TableResult:
    rows = tuple(_row(table, row, evidence, comparable) for row in table.rows)
    rows = tuple(_with_gaps(row, {reference.key: reference for reference in rows}) for row in rows)
    rows = tuple(row for row in rows if not _is_idle(row))
    comparisons = tuple(_comparisons(table, rows, comparable))
    told = table.compared == "pairs" and bool(comparisons)
    once = table.compared == "pairs" and not comparisons
    return TableResult(
        key=table.key,
        title=table.title,
        section=table.section,
        source=table.source,
        columns=table.columns,
        metrics=table.metrics,
        rows=rows,
        orders=() if comparable or told else tuple(_orders(table, rows)),
        comparisons=comparisons,
        notes=(ONE_TRIAL, *table.notes) if once else table.notes,
        **illustrate(table, rows, measured),
    )


def _is_idle(row: RowResult) -> bool:
    """Say whether a row is there on request, and neither measured nor published."""
    empty = all(cell.state == "empty" for cell in row.cells)
    printed = (value.published for cell in row.cells for value in cell.values)
    return row.on_request and empty and all(value is None for value in printed)


def _row(
    table: Table,
    row: Row,
    evidence: Mapping[str, _Evidence],
    comparable: bool,
) -> RowResult:
    trials = {column.key: _trials(table, row.key, column.key, evidence) for column in table.columns}
    unobtainable = None if any(trials.values()) else row.unobtainable
    cells = [
        _cell(
            table,
            row.key,
            column,
            [(trial, evidence[trial.key].metrics) for trial in tried],
            comparable=comparable,
            obtainable=unobtainable is None,
        )
        for column, tried in trials.items()
    ]
    return RowResult(
        key=row.key,
        name=row.name,
        on_request=row.on_request,
        counterpart=table.counterpart(row),
        unobtainable=unobtainable,
        cells=tuple(cells),
    )


def _trials(
    table: Table,
    row: str,
    column: str,
    evidence: Mapping[str, _Evidence],
) -> list[Trial]:
    """Find all trials of a cell, those beyond the wanted number too."""
    pattern = re.compile(re.escape(table.cell(row, column, 0)[:-1]) + r"(0|[1-9][0-9]*)")
    wanted = {metric.key for metric in table.metrics}
    trials = []
    for key, piece in evidence.items():
        if match := pattern.fullmatch(key):
            values = {
                name: v for name, v in _finite(piece.metrics.values).items() if name in wanted
            }
            trials.append(
                Trial(
                    number=int(match.group(1)),
                    key=key,
                    values=values,
                    artifact=piece.artifact,
                    library=_word(piece.metrics, "library"),
                    library_version=_word(piece.metrics, "library_version"),
                    arithmetic=_arithmetic(piece.metrics),
                    encoder=_encoder(piece.lineage),
                )
            )
    return sorted(trials, key=lambda trial: trial.number)


def _arithmetic(metrics: Metrics) -> str | None:
    precision, device = (_word(metrics, detail) for detail in ("precision", "device"))
    return f"{precision} on {device}" if precision and device else precision


def _encoder(lineage: Lineage) -> str | None:
    """Say what the backbone is that was converted last on the way to a measurement."""
    level = [lineage]
    while level:
        for made in level:
            architecture, parameters = (made.facts.get(f) for f in ("architecture", "parameters"))
            if made.name == CONVERTED and isinstance(architecture, str):
                size = f", {parameters / 1e6:.1f} M" if isinstance(parameters, int) else ""
                return f"{architecture}{size}"
        level = [origin for made in level for _, origin in sorted(made.inputs.items())]
    return None


def _word(metrics: Metrics, detail: str) -> str | None:
    word = metrics.details.get(detail)
    return word if isinstance(word, str) and word else None


def _cell(
    table: Table,
    row: str,
    column: str,
    measured: Sequence[tuple[Trial, Metrics]],
    *,
    comparable: bool,
    obtainable: bool,
) -> CellResult:
    published = next((p for p in table.published if (p.row, p.column) == (row, column)), None)
    trials = tuple(trial for trial, _ in measured)
    values = _values(table, published, trials, comparable)
    return CellResult(
        column=column,
        state=_state(values, trials, table.trials) if obtainable else "unobtainable",
        values=values,
        trials=trials,
        wanted=table.trials,
        command=table.fill(row, column) if obtainable and len(trials) < table.trials else None,
        source=published.source if published else None,
        notes=tuple(note for trial, metrics in measured for note in _lacks(table, trial, metrics)),
    )


def _state(
    values: Sequence[Value], trials: Sequence[Trial], wanted: int
) -> Literal["measured", "partial", "empty"]:
    if not trials:
        return "empty"
    return "measured" if all(value.trials >= wanted for value in values) else "partial"


def _values(
    table: Table, published: Published | None, trials: Iterable[Trial], comparable: bool
) -> tuple[Value, ...]:
    values = []
    for index, metric in enumerate(table.metrics):
        samples = [trial.values[metric.key] for trial in trials if metric.key in trial.values]
        printed = published.values[index] if published else None
        mean = statistics.fmean(samples) if samples else None
        values.append(
            Value(
                metric=metric.key,
                decimals=metric.decimals,
                published=printed,
                published_spread=published.spread[index]
                if published and published.spread
                else None,
                measured=mean,
                deviation=statistics.stdev(samples) if len(samples) > 1 else None,
                trials=len(samples),
                difference=_minus(mean, printed) if comparable else None,
            )
        )
    return tuple(values)


def _lacks(table: Table, trial: Trial, metrics: Metrics) -> list[str]:
    """Say which figures a trial does not have: a gap in a table is never filled silently."""
    notes = []
    for metric in table.metrics:
        if metric.key in trial.values:
            continue
        if metric.key in metrics.values:
            notes.append(
                f"trial {trial.number} measured {metrics.values[metric.key]} for {metric.key}: "
                "not counted"
            )
        else:
            holds = ", ".join(sorted(metrics.values)) or "no values"
            notes.append(f"trial {trial.number} has no value {metric.key!r}; it has {holds}")
    return notes


def _with_gaps(row: RowResult, rows: Mapping[str, RowResult]) -> RowResult:
    """Add each value's distance to the row's counterpart, as the paper prints in brackets."""
    if row.counterpart is None:
        return row
    cells = []
    for cell, reference in zip(row.cells, rows[row.counterpart].cells, strict=True):
        values = tuple(
            value.model_copy(
                update={
                    "published_gap": _minus(value.published, base.published),
                    "measured_gap": _minus(value.measured, base.measured),
                }
            )
            for value, base in zip(cell.values, reference.values, strict=True)
        )
        cells.append(cell.model_copy(update={"values": values}))
    return row.model_copy(update={"cells": tuple(cells)})


def _orders(table: Table, rows: Sequence[RowResult]) -> Iterable[RowOrder]:
    """Order the measured rows by their first metric, and the published of them likewise."""
    metric = table.metrics[0]
    for index, column in enumerate(table.columns):
        values = [(row.name, row.cells[index].values[0]) for row in rows]
        measured = [(name, v.measured, v.published) for name, v in values if v.measured is not None]
        both = [(name, mean, printed) for name, mean, printed in measured if printed is not None]
        if len(measured) < 2:
            continue
        published = _ordered([(name, printed) for name, _, printed in both], metric.decimals)
        common = _ordered([(name, mean) for name, mean, _ in both], metric.decimals)
        yield RowOrder(
            column=column.name,
            metric=metric.name,
            measured=_ordered([(name, mean) for name, mean, _ in measured], metric.decimals),
            published=published if len(both) > 1 else None,
            agrees=published == common if len(both) > 1 else None,
        )


def _comparisons(table: Table, rows: Sequence[RowResult], comparable: bool) -> Iterable[Comparison]:
    """Compare rows two by two, where both have two trials of the same numbers."""
    metric = table.metrics[0]
    for index, column in enumerate(table.columns):
        for row, against in _compared(table, rows):
            ours, theirs = (
                {trial.number: trial.values.get(metric.key) for trial in one.cells[index].trials}
                for one in (row, against)
            )
            differences = [
                value - other
                for number, value in ours.items()
                if value is not None and (other := theirs.get(number)) is not None
            ]
            count = len(differences)
            if count < 2:
                continue
            error = statistics.stdev(differences) / math.sqrt(count)
            difference = statistics.fmean(differences)
            if table.compared == "pairs" and difference < 0:  # the better one is named first
                row, against, difference = against, row, -difference  # noqa: PLW2901
            yield Comparison(
                column=column.name,
                row=row.name,
                against=against.name,
                metric=metric.name,
                decimals=metric.decimals,
                difference=round(difference, 6),
                interval=round(float(stdtrit(count - 1, 0.975)) * error, 6),
                trials=count,
                published=row.cells[index].values[0].published_gap if comparable else None,
            )


def _compared(table: Table, rows: Sequence[RowResult]) -> Iterable[tuple[RowResult, RowResult]]:
    """Yield the pairs of rows that are told apart: each with its counterpart, or all."""
    if table.compared == "pairs":
        yield from itertools.combinations(rows, 2)
    else:
        by_key = {row.key: row for row in rows}
        yield from ((row, by_key[row.counterpart]) for row in rows if row.counterpart)


def _ordered(values: Sequence[tuple[str, float]], decimals: int) -> str:
    if not values:
        return ""
    rounded = [(name, round(value, decimals)) for name, value in values]
    rounded.sort(key=lambda item: item[1])  # stable: ties stay in the table's order
    text = rounded[0][0]
    for (_, lower), (name, value) in itertools.pairwise(rounded):
        text += f" {'<' if lower < value else '='} {name}"
    return text


def _figure(figure: Figure, evidence: Mapping[str, _Evidence], comparable: bool) -> FigureResult:
    curves = tuple(_curve(curve, evidence) for curve in figure.curves)
    curves += tuple(_trend(trend, evidence) for trend in figure.trends)
    complete = all(curve.points for curve in curves)
    if comparable:
        curves += tuple(filter(None, map(_published_trend, figure.trends)))
    return FigureResult(
        key=figure.key,
        title=figure.title,
        section=figure.section,
        x_name=figure.x_name,
        y_name=figure.y_name,
        x_scale=figure.x_scale,
        curves=curves,
        published=figure.published,
        command=None if complete else figure.command,
    )


def _curve(curve: Curve, evidence: Mapping[str, _Evidence]) -> CurveResult:
    points: tuple[tuple[float, float], ...] = ()
    missing = None
    if curve.cell not in evidence:
        missing = "not measured"
    elif curve.series not in evidence[curve.cell].metrics.curves:
        known = ", ".join(sorted(evidence[curve.cell].metrics.curves)) or "no curves"
        missing = f"{curve.cell} has no curve {curve.series!r}; it has {known}"
    else:
        series = evidence[curve.cell].metrics.curves[curve.series]
        points = tuple((x, y) for x, y in series if math.isfinite(x) and math.isfinite(y))
        missing = None if points else f"{curve.cell} has no finite point in {curve.series!r}"
    return CurveResult(
        name=curve.name,
        style=curve.style,
        colour=curve.colour,
        better=curve.better,
        points=points,
        artifact=evidence[curve.cell].artifact if curve.cell in evidence else None,
        missing=missing,
    )


def _trend(trend: Trend, evidence: Mapping[str, _Evidence]) -> CurveResult:
    """Return the means of the cells that have the metric."""
    points = []
    for point in trend.points:
        values = [
            value
            for key in point.cells
            if key in evidence
            and math.isfinite(value := evidence[key].metrics.values.get(trend.metric, math.nan))
        ]
        if values:
            points.append((point.x, statistics.fmean(values)))
    return CurveResult(
        name=trend.name,
        style="solid",
        colour=trend.colour,
        points=tuple(points),
        missing=None if points else "not measured",
    )


def _published_trend(trend: Trend) -> CurveResult | None:
    points = [(point.x, point.published) for point in trend.points if point.published is not None]
    if not points:
        return None
    name = f"{trend.name}, published"
    return CurveResult(name=name, style="dashed", colour=trend.colour, points=tuple(points))


def _register(lineage: Lineage, artifacts: dict[str, Artifact]) -> str:
    """Add an artifact and all that it was made from, each once; return its key."""
    inputs = {port: _register(origin, artifacts) for port, origin in sorted(lineage.inputs.items())}
    content = lineage.model_dump(exclude={"inputs"})
    artifact = Artifact(**content, inputs=inputs)
    text = artifact.model_dump_json().encode()
    key = hashlib.sha256(text).hexdigest()[:DIGEST_CHARACTERS]
    artifacts[key] = artifact
    return key


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in sorted(values.items()) if math.isfinite(value)}


def _minus(value: float | None, base: float | None) -> float | None:
    return None if value is None or base is None else round(value - base, 6)
