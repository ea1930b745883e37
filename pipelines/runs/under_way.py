"""What trainings that are under way have recorded, as a report draws it."""

import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.core.manifest import Manifest, hash_folder, write_manifest
from components.core.metrics import HISTORY, Metrics, write_metrics
from components.core.version import code_of
from components.report import Curve, Figure
from pipelines.plan import Existing, Step
from pipelines.runs.folder import Run
from pipelines.runs.history import Row

FOLDER = ".under_way"
"""Below a run's own: what its trainings had recorded when a report last asked."""

_POSITIONS = ("step", "epoch", "lr")  # of a row, beside its figures


@dataclass(frozen=True)
class UnderWay:
    """A training that runs.

    Attributes:
        run: Of it.
        step: It.
        port: Its output that will hold the metrics.
        rows: What it has recorded, the oldest first; not empty.
    """

    run: Run
    step: Step
    port: str
    rows: Sequence[Row]

    @property
    def key(self) -> str:
        """What a report's input is called that holds its curves."""
        run = re.sub("[^a-z0-9]", "_", self.run.id)
        return f"under_way__{self.step.name}__{run}"

    def write(self) -> Existing:
        """Write its curves as a metrics artifact without values: nothing is measured yet."""
        folder = self.run.folder / FOLDER / self.step.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        curves = {
            name: [(row["epoch"], row[name]) for row in self.rows if name in row]
            for name in self._names()
        }
        write_metrics(folder, Metrics(values={}, curves=curves))
        manifest = Manifest(
            stage=self.step.stage.name,
            port=self.port,
            kind="Metrics",
            config=json.loads(self.step.config.to_json()),
            code=code_of(self.step.stage, self.step.config),
            image="under way",
            facts={"under_way": int(self.rows[-1]["step"])},
            files=hash_folder(folder),
        )
        write_manifest(folder, manifest)
        return Existing(str(folder), "Metrics")

    def figures(self) -> Iterator[Figure]:
        """Yield what is drawn of it: what is counted in percent, and losses."""
        losses = [name for name in self._names() if "loss" in name]
        others = [name for name in self._names() if name not in losses]
        kinds: tuple[tuple[str, Literal["higher", "lower"], list[str]], ...] = (
            ("%", "higher", others),
            ("loss", "lower", losses),
        )
        for y_name, better, names in kinds:
            if names:
                yield Figure(
                    key=f"{self.key}__{better}",
                    title=f"{self.run.id}: {self.step.name} to step {int(self.rows[-1]['step']):,}",
                    section="under way",
                    x_name="epochs",
                    y_name=y_name,
                    curves=tuple(
                        Curve(
                            cell=self.key,
                            series=name,
                            name=name.replace("_", " "),
                            colour=number,
                            better=better,
                        )
                        for number, name in enumerate(names)
                    ),
                    command=f"moco status {self.run.id}",
                )

    def _names(self) -> list[str]:
        return sorted({name for row in self.rows for name in row} - {*_POSITIONS})


def find_under_way(run: Run, history: Callable[[Run, str], Sequence[Row]]) -> Iterator[UnderWay]:
    """Yield the trainings of a run that are under way and have recorded something.

    Args:
        run: The run.
        history: Asks its backend for a step's rows, where they are not in the run's folder.

    Raises:
        StoreError: if the store of a run of a cluster cannot be reached.
    """
    for step in run.plan:
        ports = [name for name, port in step.stage.outputs.items() if port.kind == "Metrics"]
        if run.status(step.name).state == "running" and ports:
            rows = _read(run.artifact(step.name, ports[0]) / HISTORY) or history(run, step.name)
            if rows:
                yield UnderWay(run, step, ports[0], rows)


def _read(path: Path) -> list[Row]:
    rows: list[Row] = []
    # The last line may be half written.
    with suppress(OSError, ValueError), path.open(encoding="utf-8") as lines:
        rows.extend(json.loads(line) for line in lines)
    return rows
