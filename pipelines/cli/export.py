"""`moco export`: a backbone of a run in the form of another tool, with a model card."""

import importlib
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from components.convert import STAGE as CONVERT
from components.core.errors import DataError, UsageError
from components.core.manifest import MANIFEST, Manifest, verify
from components.core.metrics import read_metrics
from components.report import Table
from pipelines.cli.explain import whole_lineage
from pipelines.cli.options import RunName, StepName
from pipelines.cli.output import say
from pipelines.plan import Output
from pipelines.runs.cells import Cell, cells_of, report_config_of, table_of
from pipelines.runs.find import find_run
from pipelines.runs.folder import Run, runs_folder

PORT = "backbone"
CARD = "README.md"
HEADING = (
    "| table | column | metric | measured | trials | published |",
    "|:--|:--|:--|--:|--:|--:|",
)


def export(
    run: RunName,
    step: StepName,
    folder: Annotated[Path, Parameter(help="A new folder.")],
    /,
    *,
    to: Annotated[
        Literal["torchvision", "timm", "huggingface", "detectron2", "onnx"],
        Parameter(help="The tool that reads it."),
    ],
) -> None:
    """Write a converted backbone as another tool reads it, with a model card.

    The card says what it was trained by and on, what was measured of it in the run, and where
    all of it comes from. Nothing is sent anywhere.
    """
    named = find_run(run, runs_folder())
    artifact = _backbone(named, step)
    manifest = verify(artifact)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # By name: to plan and to look needs neither numpy nor torch.
        usage = importlib.import_module("components.convert.export").export(artifact, to, folder)
        usage = usage.replace("FOLDER", str(folder))
        (folder / CARD).write_text(_card(named, step, manifest, to, usage), "utf-8")
    except BaseException:
        shutil.rmtree(folder)
        raise
    say(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    say()
    say(usage.rstrip())


def _backbone(run: Run, step: str) -> Path:
    """Return the folder of the backbone that a step made.

    Raises:
        UsageError: if the step makes none, naming those that do.
        DataError: if it is not there.
    """
    run.require_step(step)
    if run.plan.step(step).stage is not CONVERT:
        others = [one.name for one in run.plan if one.stage is CONVERT]
        raise UsageError(
            f"{step} is a step of {run.plan.step(step).stage.name}; backbones are what "
            f"{', '.join(others) or 'no step of this run'} made"
        )
    maker, made = run.maker(step)
    for place in (run.artifact(step, PORT), maker.artifact(made, PORT)):
        if (place / MANIFEST).exists():
            return place
    raise DataError(
        f"{run.id}: {step} has no backbone here; if the run was submitted, "
        f"`moco pull {run.id} --stage {step}` fetches it"
    )


def _card(run: Run, step: str, manifest: Manifest, to: str, usage: str) -> str:
    """Write a model card, as Markdown."""
    facts = manifest.facts
    title = f"{facts.get('origin', 'unknown')}, {facts.get('architecture', 'ResNet')}"
    lines = [
        "---",
        "tags: [moco-transfer, self-supervised, image-feature-extraction]",
        f"library_name: {'transformers' if to == 'huggingface' else to}",
        "---",
        f"# {title}",
        "",
        f"A backbone without a classifier, made by the step `{step}` of the run `{run.id}` of "
        f"moco-transfer ({run.record.scale} scale). Images are RGB, normalised by ImageNet's mean "
        "and deviation.",
        "",
        "```python",
        usage.rstrip(),
        "```",
        "",
        "## Measured in this run",
        "",
        *(_figures(run, step) or ["Nothing yet."]),
        "",
        "## Licence",
        "",
        "Weights come under the terms of what they were made from: the data and the checkpoint "
        "below. moco-transfer claims nothing.",
        "",
        "## Where it comes from",
        "",
        "```text",
        *whole_lineage(manifest.lineage()),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _figures(run: Run, step: str) -> list[str]:
    """Return a table of what was measured of a backbone, by cell."""
    trials: dict[tuple[str, str, str], list[Cell]] = {}
    for key, cell in cells_of(run).items():
        if cell.is_there and _reads(run, cell, step):
            table, row, column, _ = key.split("__")
            trials.setdefault((table, row, column), []).append(cell)
    config = report_config_of(run)
    lines: list[str] = []
    for (_, row, column), cells in trials.items():
        if stands_in := table_of(config, cells[0].key):
            lines += _lines(stands_in, row, column, cells)
    return [*HEADING, *lines] if lines else []


def _reads(run: Run, cell: Cell, step: str) -> bool:
    """Say whether a cell was trained from the backbone of a step, itself and at once."""
    if not isinstance(cell.source, Output):
        return False
    return run.plan.step(cell.source.step).inputs.get(PORT) == Output(
        step, PORT, CONVERT.outputs[PORT].kind
    )


def _lines(table: Table, row: str, column: str, cells: list[Cell]) -> Iterator[str]:
    name = next((one.name for one in table.columns if one.key == column), column)
    printed = next((p for p in table.published if (p.row, p.column) == (row, column)), None)
    measured = [read_metrics(cell.artifact).values for cell in cells]
    for index, metric in enumerate(table.metrics):
        values = [trial[metric.key] for trial in measured if metric.key in trial]
        if not values:
            continue
        mean = f"{statistics.fmean(values):.{metric.decimals}f}"
        spread = f" ± {statistics.stdev(values):.{metric.decimals}f}" if len(values) > 1 else ""
        paper = printed.values[index] if printed else None
        yield (
            f"| {table.title} | {name} | {metric.name} | {mean}{spread} | {len(values)} | "
            f"{'' if paper is None else paper} |"
        )
