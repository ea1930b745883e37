"""Computes what illustrates a table, as data: pictures, bars for each class, training curves."""

import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from components.report import Table
from components.report.measured import PICTURES, Measured
from components.report.results import (
    BarChart,
    BarSeries,
    CurveResult,
    Panel,
    RowResult,
    Sheet,
    TrainingChart,
    Trial,
)

CLASSES = 30
"""So many classes are drawn; of more, the most frequent."""
POINTS = 200
"""So many points of a curve are drawn; of more, evenly many are left out."""
FREQUENCIES = {"APr": "rare", "APc": "common", "APf": "frequent"}
"""LVIS's groups of classes, which are drawn instead of its hundreds of classes."""
COUNTS = ("images", "instances")
"""What says how frequent a class is in the validation images."""
LOSS = "loss"
STYLES = ("solid", "dashed")
"""A fifth row has the first row's colour again."""
COLOURS = 4

Tried = list[tuple[int, RowResult, Sequence[Trial]]]
"""The measured rows of a column: place in the table, row, trials."""


def illustrate(
    table: Table, rows: Sequence[RowResult], measured: Mapping[str, Measured]
) -> dict[str, Any]:
    """Return the fields of a `TableResult` that hold its pictures and charts.

    Args:
        table: Its declaration.
        rows: Its rows, measured.
        measured: Metrics artifacts by the keys of the trials.
    """
    sheets: list[Sheet] = []
    per_class: list[BarChart] = []
    training: list[TrainingChart] = []
    for index, column in enumerate(table.columns):
        tried: Tried = [
            (place, row, row.cells[index].trials)
            for place, row in enumerate(rows)
            if row.cells[index].trials
        ]
        for _, row, trials in tried:
            sheets += _sheet(row, column.key, trials[0], measured)
        name = f"{table.key}__{column.key}"
        per_class += _per_class(table, f"per_class__{name}", column.key, tried, measured)
        training += _training(table, f"training__{name}", column.key, tried, measured)
    trials = [trial for row in rows for cell in row.cells for trial in cell.trials]
    return {
        "sheets": tuple(sheets),
        "per_class": tuple(per_class),
        "training": tuple(training),
        "remarks": tuple(f"{t.key}: {fault}" for t in trials for fault in measured[t.key].faults),
    }


def _sheet(
    row: RowResult, column: str, trial: Trial, measured: Mapping[str, Measured]
) -> Iterator[Sheet]:
    """Yield the first picture of a trial, if it has any."""
    artifact = measured[trial.key]
    captions = artifact.metrics.details.get("captions")
    for picture in artifact.pictures[:1]:
        caption = captions.get(picture.name) if isinstance(captions, dict) else None
        yield Sheet(
            row=row.key,
            column=column,
            key=trial.key,
            name=picture.name,
            caption=caption if isinstance(caption, str) else None,
            file=f"{PICTURES}/{trial.key}__{picture.path.name}",
            kind=picture.kind,
            width=picture.width,
            height=picture.height,
            size=picture.entry.size,
            sha256=picture.entry.sha256,
        )


def _per_class(
    table: Table, key: str, column: str, tried: Tried, measured: Mapping[str, Measured]
) -> Iterator[BarChart]:
    """Yield bars for LVIS's groups of classes, otherwise for the classes, if there are any."""

    def chart(
        metric: str, names: dict[str, str], value: Callable[[Measured, str], float | None]
    ) -> BarChart:
        series = tuple(
            BarSeries(
                name=row.name,
                colour=place,
                values=tuple(_mean(value(measured[t.key], name) for t in trials) for name in names),
            )
            for place, row, trials in tried
        )
        return BarChart(
            key=key, column=column, metric=metric, classes=tuple(names.values()), series=series
        )

    artifacts = [measured[trial.key] for _, _, trials in tried for trial in trials]
    for metric in (metric for metric in table.metrics if metric.key.endswith("AP")):
        prefix = metric.key.removesuffix("AP")
        groups = {f"{prefix}{name}": word for name, word in FREQUENCIES.items()}
        if any(groups.keys() <= artifact.metrics.values.keys() for artifact in artifacts):
            yield chart(
                metric.name, groups, lambda artifact, name: artifact.metrics.values.get(name)
            )
            return
    key_of_classes = _metric_of_classes(table, artifacts)
    if key_of_classes is None:
        return
    frequent: dict[str, float] = {}  # how often each class is there that any row is measured on
    for artifact in artifacts:
        for name, figures in artifact.classes.items():
            if figures.get(key_of_classes) is not None:
                counts = (figures.get(word) or 0 for word in COUNTS)
                frequent.setdefault(name, max(counts))
    most = {*sorted(frequent, key=lambda name: -frequent[name])[:CLASSES]}  # stable
    shown = {name: name for name in frequent if name in most}
    heading = next((m.name for m in table.metrics if m.key == key_of_classes), key_of_classes)
    bars = chart(
        heading, shown, lambda artifact, name: artifact.classes.get(name, {}).get(key_of_classes)
    )
    yield bars.model_copy(update={"left_out": len(frequent) - len(shown)})


def _metric_of_classes(table: Table, artifacts: Iterable[Measured]) -> str | None:
    """Choose the table's first metric that the classes have, or else their first that is no count.

    Counts, of images or of right answers, are whole numbers.
    """
    known: dict[str, None] = {}
    for artifact in artifacts:
        for figures in artifact.classes.values():
            known |= {name: None for name, value in figures.items() if isinstance(value, float)}
    wanted = (metric.key for metric in table.metrics if metric.key in known)
    return next(itertools.chain(wanted, known), None)


def _mean(values: Iterable[float | None]) -> float | None:
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.fmean(finite) if finite else None


def _training(
    table: Table, key: str, column: str, tried: Tried, measured: Mapping[str, Measured]
) -> Iterator[TrainingChart]:
    """Yield the curves of the first trials: the loss, and the first metric that was followed."""
    firsts = [(place, row, trials[0]) for place, row, trials in tried]
    followed = [
        (metric.key, metric.name)
        for metric in table.metrics
        if any(metric.key in measured[trial.key].metrics.curves for _, _, trial in firsts)
    ]
    panels = []
    for series, name in [(LOSS, LOSS), *followed[:1]]:
        curves = [
            CurveResult(
                name=row.name,
                style=STYLES[place // COLOURS % len(STYLES)],
                colour=place,
                points=points,
                artifact=trial.artifact,
            )
            for place, row, trial in firsts
            if (points := _points(measured[trial.key].metrics.curves.get(series, ())))
        ]
        if curves:
            panels.append(Panel(name=name, curves=tuple(curves)))
    if panels:
        yield TrainingChart(key=key, column=column, x_name="epoch", panels=tuple(panels))


def _points(series: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Thin a series out; its last point stays."""
    finite = [(x, y) for x, y in series if math.isfinite(x) and math.isfinite(y)]
    step = -(-len(finite) // POINTS) or 1
    return tuple(reversed(finite[::-1][::step]))
