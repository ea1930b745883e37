"""The content of `report.json`: what every form of the report is made of."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from components.core.errors import DataError
from components.core.manifest import Code, FileEntry
from components.report import Column, Metric
from components.report.formats import count, fixed, signed

REPORT = "report.json"
NOT_STATED = "not stated"


class _Record(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class Value(_Record):
    """One metric of one cell; differences and gaps are rounded to six decimals."""

    metric: str
    decimals: int
    published: float | None = None
    published_spread: float | None = None
    published_gap: float | None = None
    """Published value minus that of the row's counterpart."""
    measured: float | None = None
    """Mean over the trials that have the metric."""
    deviation: float | None = None
    """Sample standard deviation, from two trials on."""
    trials: int = 0
    """How many trials have the metric."""
    difference: float | None = None
    """Measured minus published; absent where the two are not the same experiment."""
    measured_gap: float | None = None
    """Measured mean minus that of the row's counterpart."""


class Trial(_Record):
    """One measured trial of a cell."""

    number: int
    key: str
    values: dict[str, float]
    """The table's metrics, as measured."""
    artifact: str
    """Key among the report's artifacts."""
    library: str | None = None
    """Which model library made the detector, where the trial says so."""
    library_version: str | None = None
    arithmetic: str | None = None
    """In what precision it was trained, and on what device, where the trial says so."""
    encoder: str | None = None
    """Architecture and size of the backbone, where its conversion says so."""


class CellResult(_Record):
    """One row in one column: every metric, published and measured."""

    column: str
    state: Literal["measured", "partial", "empty", "unobtainable"]
    values: tuple[Value, ...]
    trials: tuple[Trial, ...] = ()
    wanted: int
    """Trials that the table asks for."""
    command: str | None = None
    """Fills or completes the cell."""
    source: str | None = None
    """Where the published values are from, if not where the table's are from."""
    notes: tuple[str, ...] = ()
    """What a trial lacks."""


class RowResult(_Record):
    """One row of a table."""

    key: str
    name: str
    on_request: bool = False
    """Whether it is measured only where a user names it."""
    counterpart: str | None = None
    """Key of the row that the gaps refer to."""
    unobtainable: str | None = None
    """Why nobody can measure it; absent as soon as someone has."""
    cells: tuple[CellResult, ...]


class RowOrder(_Record):
    """The measured rows of one column, from the lowest to the highest value of the first metric."""

    column: str
    metric: str
    measured: str
    published: str | None = None
    """The same for those of them that are published, if there are two at least."""
    agrees: bool | None = None
    """Whether the rows that have both numbers are in the same order."""


class Comparison(_Record):
    """A row against its counterpart by the first metric, over the trials that both have.

    Trials of one number have the same seed, so their differences leave out what seeds do to both.
    """

    column: str
    row: str
    against: str
    metric: str
    decimals: int
    difference: float
    """Mean over the trials, row minus counterpart."""
    interval: float
    """Half of the 95 % confidence interval of the mean, by Student's t."""
    trials: int
    published: float | None = None
    """The published difference, where the two are the same experiment."""

    @property
    def told_apart(self) -> bool:
        """Whether no difference at all is outside of the interval."""
        return abs(self.difference) > self.interval

    @property
    def words(self) -> str:
        """The verdict as a sentence."""
        size = fixed(abs(self.difference), self.decimals)
        interval = fixed(self.interval, self.decimals)
        better = "better" if self.difference > 0 else "worse"
        if self.told_apart and not self.interval:
            seeds = f"the same in {count(self.trials, 'trial')}, which draw nothing"
            verdict = (
                f"{self.row} is {better} than {self.against} by {size} ({self.metric}, {seeds})"
            )
        elif self.told_apart:
            verdict = f"{self.row} is {better} than {self.against} by {size} ± {interval}"
        else:
            gap = signed(self.difference, self.decimals)
            verdict = f"{self.row} and {self.against} cannot be told apart: {gap} ± {interval}"
        chance = f" ({self.metric}, 95 %, {count(self.trials, 'trial')})"
        told = verdict if self.told_apart and not self.interval else f"{verdict}{chance}"
        if self.published is None:
            return told
        printed = signed(self.published, self.decimals)
        alike = self.told_apart and self.difference * self.published > 0
        return f"{told}, as published ({printed})" if alike else f"{told}; published {printed}"


class Sheet(_Record):
    """A picture of a cell's first trial: images, their ground truth, what the model predicts."""

    row: str
    column: str
    key: str
    """Of the trial's metrics."""
    name: str
    """Among the pictures of those."""
    caption: str | None = None
    file: str
    """Where it lies in the report's folder."""
    kind: Literal["png", "jpeg"]
    width: int
    """Pixels, like the height."""
    height: int
    size: int
    """Bytes."""
    sha256: str


class BarSeries(_Record):
    """What one row has for each class: means over the trials that say."""

    name: str
    colour: int
    values: tuple[float | None, ...]


class BarChart(_Record):
    """One figure of every row for each class, or each group of classes, of a column."""

    key: str
    """Names its files."""
    column: str
    metric: str
    classes: tuple[str, ...]
    series: tuple[BarSeries, ...]
    left_out: int = 0
    """Classes that are measured and not drawn."""


class CurveResult(_Record):
    """One curve of a figure, with the points that are finite."""

    name: str
    style: str
    colour: int
    points: tuple[tuple[float, float], ...] = ()
    artifact: str | None = None
    missing: str | None = None
    """Why there are no points, if so."""
    better: Literal["higher", "lower"] = "higher"

    @property
    def end(self) -> tuple[float, float]:
        """The last point."""
        return self.points[-1]

    @property
    def best(self) -> tuple[float, float]:
        """The first of the highest points, or of the lowest where these are better."""
        sign = 1 if self.better == "higher" else -1
        return max(self.points, key=lambda point: sign * point[1])


class Panel(_Record):
    """One figure of the first trial of every row, over training."""

    name: str
    curves: tuple[CurveResult, ...]


class TrainingChart(_Record):
    """How the trainings of a column went: the loss, and a metric if one was followed."""

    key: str
    """Names its files."""
    column: str
    x_name: str
    panels: tuple[Panel, ...]


class TableResult(_Record):
    """A table of the paper with what was measured."""

    key: str
    title: str
    section: str
    source: str
    columns: tuple[Column, ...]
    metrics: tuple[Metric, ...]
    rows: tuple[RowResult, ...]
    orders: tuple[RowOrder, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    notes: tuple[str, ...] = ()
    sheets: tuple[Sheet, ...] = ()
    per_class: tuple[BarChart, ...] = ()
    training: tuple[TrainingChart, ...] = ()
    remarks: tuple[str, ...] = ()
    """What of the artifacts' pictures and classes could not be shown."""

    @property
    def done(self) -> int:
        """Trials at hand, of those that the table asks for."""
        return sum(min(len(cell.trials), cell.wanted) for row in self.rows for cell in row.cells)

    @property
    def wanted(self) -> int:
        """Trials that the table asks for in rows that can be had; of rows on request, if begun."""
        rows = [row for row in self.rows if row.unobtainable is None]
        rows = [row for row in rows if not row.on_request or any(c.trials for c in row.cells)]
        return sum(cell.wanted for row in rows for cell in row.cells)

    @property
    def printed(self) -> bool:
        """Whether any of its numbers is published."""
        cells = (cell for row in self.rows for cell in row.cells)
        return any(value.published is not None for cell in cells for value in cell.values)

    @property
    def libraries(self) -> dict[str, tuple[str, ...]]:
        """The model libraries with their versions, and which cells each made; empty if none says.

        Cells are named by their row, and their column if there are several; trials that say
        nothing are those of `not stated`.
        """

        def words(trial: Trial) -> str:
            both = (trial.library, trial.library and trial.library_version)
            return " ".join(word for word in both if word)

        return self._cells_by(words)

    @property
    def made_by(self) -> str:
        """The model library of the numbers in words, with the cells if there are several."""
        return _in_words(self.libraries)

    @property
    def computed(self) -> str:
        """The precision and the device of the trainings in words, with the cells if several."""
        return _in_words(self._cells_by(lambda trial: trial.arithmetic or ""))

    @property
    def encoders(self) -> dict[str, tuple[str, ...]]:
        """The architectures of the rows' backbones, and which rows have each."""
        rows: dict[str, dict[str, None]] = {}
        for row in self.rows:
            for encoder in {t.encoder: None for cell in row.cells for t in cell.trials}:
                rows.setdefault(encoder or NOT_STATED, {})[row.name] = None
        rows = {} if {*rows} == {NOT_STATED} else rows
        return {encoder: tuple(names) for encoder, names in rows.items()}

    @property
    def encoded_by(self) -> str:
        """The backbones in words, with the rows if there are several."""
        return _in_words(self.encoders)

    @property
    def differ_in_size(self) -> bool:
        """Whether rows have backbones of different architectures."""
        return len({*self.encoders} - {NOT_STATED}) > 1

    def _cells_by(self, word: Callable[[Trial], str]) -> dict[str, tuple[str, ...]]:
        """Return cells by what their trials say; empty if none says anything."""
        said: dict[str, dict[str, None]] = {}
        for row in self.rows:
            for cell, column in zip(row.cells, self.columns, strict=True):
                name = f"{row.name}, {column.name}" if len(self.columns) > 1 else row.name
                for trial in cell.trials:
                    said.setdefault(word(trial) or NOT_STATED, {})[name] = None
        said = {} if {*said} == {NOT_STATED} else said
        return {label: tuple(said[label]) for label in sorted(said)}

    @property
    def mixed(self) -> bool:
        """Whether its numbers come from different model libraries, so that none can be compared."""
        cells = (cell for row in self.rows for cell in row.cells)
        return len({t.library for cell in cells for t in cell.trials if t.library}) > 1


def _in_words(cells: Mapping[str, tuple[str, ...]]) -> str:
    if len(cells) < 2:
        return "".join(cells)
    return "; ".join(f"{label} ({', '.join(names)})" for label, names in cells.items())


class FigureResult(_Record):
    """A figure of the paper with the measured curves."""

    key: str
    title: str
    section: str
    x_name: str
    y_name: str
    x_scale: Literal["linear", "log"] = "linear"
    curves: tuple[CurveResult, ...]
    published: tuple[str, ...] = ()
    command: str | None = None
    """Measures the curves that are missing."""

    @property
    def drawn(self) -> tuple[CurveResult, ...]:
        """The curves that have points."""
        return tuple(curve for curve in self.curves if curve.points)


class Measurement(_Record):
    """A metrics artifact that no table and no figure asks for."""

    key: str
    values: dict[str, float]
    artifact: str


class Artifact(_Record):
    """What a number was made from, or the measurement itself; inputs are keys of others."""

    origin: Literal["stage", "mount", "file"]
    name: str
    digest: str | None = None
    config: dict[str, JsonValue] | None = None
    code: Code | None = None
    image: str | None = None
    facts: dict[str, JsonValue] = {}
    file_count: int = 0
    size: int = 0
    """Bytes."""
    files: dict[str, FileEntry] = {}
    inputs: dict[str, str] = {}


class Report(_Record):
    """Everything that a report says."""

    format: Literal[1] = 1
    title: str
    scale: str
    tables: tuple[TableResult, ...] = ()
    figures: tuple[FigureResult, ...] = ()
    others: tuple[Measurement, ...] = ()
    artifacts: dict[str, Artifact] = {}

    @property
    def comparable(self) -> bool:
        """Whether published and measured numbers are of the same experiment."""
        return self.scale == "full"


def read_report(path: Path) -> Report:
    """Read `report.json`, or the one in a report's folder.

    Raises:
        DataError: if it is missing or not a report of this version.
    """
    path = path / REPORT if path.is_dir() else path
    try:
        return Report.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(f"{path} is not a report: {error}") from None
