"""The cells of a run's tables: which artifact fills each, and how people name them."""

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path

from components.core.errors import DataError, UsageError
from components.core.manifest import MANIFEST
from components.core.store import is_remote, local_path
from components.report import ReportConfig, Table
from pipelines.plan import Existing, Output, Plan, Source
from pipelines.runs.folder import Run
from pipelines.runs.record import DONE
from pipelines.tables import report_config, report_steps

EXISTING = ".existing"
"""Folder, in a run's own, of the cells that it took from elsewhere and that were pulled."""


@dataclass(frozen=True)
class Cell:
    """One trial of one cell: a metrics artifact that a run made or took from elsewhere.

    Attributes:
        key: `TABLE__ROW__COLUMN__TRIAL`.
        run: The run.
        source: What fills it, in the run's plan.
        artifact: Where the metrics are, or will be.
    """

    key: str
    run: Run
    source: Source
    artifact: Path

    @property
    def name(self) -> str:
        """The key as people write it: `TABLE/ROW/COLUMN/TRIAL`."""
        return self.key.replace("__", "/")

    @property
    def is_there(self) -> bool:
        """Whether it was measured."""
        if isinstance(self.source, Output) and self.run.status(self.source.step).state not in DONE:
            return False
        return (self.artifact / MANIFEST).exists()

    def require(self) -> None:
        """Refuse a cell that was not measured.

        Raises:
            DataError: saying what became of the step that would measure it.
        """
        if self.is_there:
            return
        if isinstance(self.source, Output):
            state = self.run.status(self.source.step).state
            raise DataError(
                f"{self.name} of run {self.run.id} is not measured: its step {self.source.step} "
                f"is {state}. `moco logs {self.run.id} {self.source.step}` shows why; "
                f"`moco rerun {self.run.id} {self.source.step} --downstream` runs it again"
            )
        raise DataError(f"{self.name} of run {self.run.id}: {self.artifact} is gone")


def cells_of(run: Run) -> dict[str, Cell]:
    """Return the cells of a run by key.

    A rerun without a report fills cells of the run that it came from.
    """
    plan = run.plan
    origin = origin_of(run)
    cells = {} if origin is None or report_steps(plan) else _cells(run, origin.plan, plan)
    return cells | _cells(run, plan, plan)


def report_config_of(run: Run) -> ReportConfig:
    """Return the tables of a run, those of the run it came from if it has no report."""
    origin = origin_of(run)
    if origin is not None and not report_steps(run.plan):
        return report_config_of(origin)
    return report_config(run.plan)


def find_cell(run: Run, name: str) -> Cell:
    """Find a cell by key, or by `TABLE/ROW/COLUMN` with or without `/TRIAL`.

    Raises:
        UsageError: if there is none, naming the nearest.
    """
    cells = cells_of(run)
    if not cells:
        raise UsageError(f"run {run.id} has no report, so it fills no cells")
    key = name.strip("/").replace("/", "__")
    for candidate in (key, f"{key}__0"):
        if candidate in cells:
            return cells[candidate]
    near = difflib.get_close_matches(key, cells, n=3, cutoff=0.4) or list(cells)[:3]
    shown = ", ".join(cells[cell].name for cell in near)
    raise UsageError(f"run {run.id} has no cell {name!r}; the nearest: {shown}")


def table_of(config: ReportConfig, key: str) -> Table | None:
    """Return the table that a cell stands in."""
    return next((t for t in config.tables if key.startswith(f"{t.key}__")), None)


def pulled_artifact(run: Run, source: Existing) -> Path:
    """Return where an artifact from elsewhere is kept once it was pulled."""
    return run.folder / EXISTING / hashlib.sha256(source.uri.encode()).hexdigest()[:16]


def existing_artifact(run: Run, source: Existing) -> Path:
    """Return where an artifact from elsewhere is: where it was pulled to, else where it lay."""
    pulled = pulled_artifact(run, source)
    if is_remote(source.uri) or pulled.exists():
        return pulled
    return local_path(source.uri)


def origin_of(run: Run) -> Run | None:
    """Return the run that a rerun takes its upstream artifacts from, if it is still there."""
    parent = run.record.parent
    origin = Run(run.folder.parent / parent.run) if parent else None
    return origin if origin is not None and origin.folder.is_dir() else None


def _cells(run: Run, reports: Plan, plan: Plan) -> dict[str, Cell]:
    """Return the cells of a plan's reports that another plan, the run's own, fills."""
    cells = {}
    for step in report_steps(reports):
        for port, source in step.sources():
            key = port.removeprefix("metrics.")
            if isinstance(source, Output) and source.step in plan.steps:
                artifact = run.artifact(source.step, source.port, source.kind)
                cells[key] = Cell(key, run, source, artifact)
            elif isinstance(source, Existing) and reports is plan:
                cells[key] = Cell(key, run, source, existing_artifact(run, source))
    return cells
