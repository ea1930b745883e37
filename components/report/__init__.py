"""Stage: every measured cell beside the published one."""

from collections.abc import Hashable, Iterator
from typing import Annotated, Literal, Self, TypeVar

from pydantic import PositiveInt, StringConstraints, model_validator

from components.core.config import Config
from components.core.stage import Port, Resources, Stage

T = TypeVar("T", bound=Hashable)
Key = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")]
"""Names ports, files and anchors, and stands in commands."""


class Metric(Config):
    """One figure of a cell."""

    key: str
    """Name among the values of a metrics artifact."""
    name: str
    """As the paper heads its column, LaTeX-free: `AP50`, `top-1`."""
    decimals: int = 1


class Row(Config):
    """One row of a table: an initialisation, or a setting of an ablation."""

    key: Key
    name: str
    unobtainable: str | None = None
    """Why nobody can measure this row, if so."""
    on_request: bool = False
    """Whether it is measured only where `--rows` names it, because it costs more than the rest."""
    given: str | None = None
    """Options that bring its checkpoint, if the user has one: `--row mine=encoder.pth`."""
    counterpart: str | None = None
    """Row that its gap is measured against; by default the row `supervised`, if there is one."""


class Column(Config):
    """One column of a table: a schedule, a data set."""

    key: Key
    name: str


class Published(Config):
    """What the paper prints in one cell, in the order of the table's metrics."""

    row: str
    column: str
    values: tuple[float | None, ...]
    spread: tuple[float | None, ...] | None = None
    """Standard deviations, where they are published."""
    source: str | None = None
    """Where it is from, if not where the rest of the table is from."""


class Table(Config):
    """A table as data: what is to be measured, and what the paper prints where it has the table."""

    key: Key
    title: str
    section: str
    """`Appendix A.6`, `Table 1`."""
    source: str
    """`appendix`, or `main paper, transcribed`."""
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    metrics: tuple[Metric, ...]
    published: tuple[Published, ...] = ()
    trials: PositiveInt = 1
    """How many runs with seeds of their own the paper averages."""
    compared: Literal["counterpart", "pairs"] = "counterpart"
    """Whether a row is told apart from its counterpart, or from every other row."""
    command: str
    """Fills a cell; `{row}`, `{column}` and `{trials}` are replaced."""
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if faults := list(self._faults()):
            raise ValueError(f"table {self.key}: " + "; ".join(faults))
        return self

    def cell(self, row: str, column: str, trial: int) -> str:
        """Return the key of one trial's metrics: `TABLE__ROW__COLUMN__TRIAL`."""
        return f"{self.key}__{row}__{column}__{trial}"

    def cells(self, row: str, column: str) -> Iterator[str]:
        """Yield the keys of all trials of one cell."""
        return (self.cell(row, column, trial) for trial in range(self.trials))

    def counterpart(self, row: Row) -> str | None:
        """Return the key of the row that a row's gap is measured against."""
        if row.counterpart or row.key == "supervised" or self.compared == "pairs":
            return row.counterpart
        return "supervised" if any(known.key == "supervised" for known in self.rows) else None

    def fill(self, row: str, column: str) -> str:
        """Return the command that fills one cell."""
        given = next((known.given for known in self.rows if known.key == row and known.given), None)
        command = self.command.replace("{trials}", str(self.trials))
        command = command.replace("{row}", row).replace("{column}", column)
        return f"{command} {given}" if given else command

    def _faults(self) -> Iterator[str]:
        rows = [row.key for row in self.rows]
        columns = [column.key for column in self.columns]
        metrics = [metric.key for metric in self.metrics]
        cells = [(published.row, published.column) for published in self.published]
        for kind, names in (("row", rows), ("column", columns), ("metric", metrics)):
            yield from (f"two {kind}s are called {n!r}" for n in sorted(_repeated(names)))
            if not names:
                yield f"it has no {kind}s"
        for row in self.rows:
            if row.counterpart is not None and row.counterpart not in rows:
                yield f"the counterpart of {row.key}, {row.counterpart!r}, is not a row"
        yield from (f"{row}, {column} is published twice" for row, column in _repeated(cells))
        for cell in self.published:
            if cell.row not in rows or cell.column not in columns:
                yield f"a number is published for {cell.row}, {cell.column}: there is no such cell"
            if {len(cell.values), len(cell.spread or cell.values)} != {len(metrics)}:
                yield f"{cell.row}, {cell.column}: as many values as metrics are needed"


def _repeated(names: list[T]) -> set[T]:
    return {name for name in names if names.count(name) > 1}


class Curve(Config):
    """One curve of a figure."""

    cell: str
    """Key of the metrics artifact that holds it."""
    series: str
    """Name among its curves."""
    name: str
    """For the legend."""
    style: str = "solid"
    """`solid` or `dashed`."""
    colour: int = 0
    """Curves of one setting share a colour."""
    better: Literal["higher", "lower"] = "higher"
    """Which of its points is the best one."""


class TrendPoint(Config):
    """A point of a trend: a cell of a table."""

    x: float
    cells: tuple[str, ...]
    """Keys of its trials."""
    published: float | None = None


class Trend(Config):
    """What a metric of cells does over a setting."""

    name: str
    """For the legend."""
    metric: str
    points: tuple[TrendPoint, ...]
    colour: int = 0


class Figure(Config):
    """A figure of the paper: curves over epochs, or a metric over a setting."""

    key: Key
    title: str
    section: str
    x_name: str
    y_name: str
    curves: tuple[Curve, ...] = ()
    trends: tuple[Trend, ...] = ()
    x_scale: Literal["linear", "log"] = "linear"
    published: tuple[str, ...] = ()
    """What the paper says of it, in words and numbers."""
    command: str
    """Draws it when its curves are missing."""


class ReportConfig(Config):
    """Tables and figures to fill from the metrics at hand."""

    title: str = "MoCo transfer experiments"
    """Heads the page."""
    scale: str = "full"
    """`full`, or `digits`: then published and measured differ in everything but the recipe."""
    tables: tuple[Table, ...] = ()
    """What to print, published values included."""
    figures: tuple[Figure, ...] = ()
    """What to draw."""

    @model_validator(mode="after")
    def _has_unique_keys(self) -> Self:
        for kind, parts in (("table", self.tables), ("figure", self.figures)):
            for name in sorted(_repeated([part.key for part in parts])):
                raise ValueError(f"two {kind}s are called {name!r}")
        return self


STAGE = Stage(
    name="report",
    summary="Print every measured cell beside the published one.",
    config=ReportConfig,
    inputs={
        "metrics": Port("Metrics", "measured trials, keyed TABLE__ROW__COLUMN__TRIAL", many=True)
    },
    outputs={
        "report": Port("Report", "index.html, report.md, report.json"),
        "html": Port("HTML", "the same index.html, where the Kubeflow UI looks for it"),
    },
    run="components.report.build:run",
    resources=Resources(gpus=0, cpus=1, memory=2),
)
