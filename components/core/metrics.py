"""The metrics artifact: measured figures and curves in one JSON file."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from components.core.errors import DataError

METRICS = "metrics.json"
HISTORY = "history.jsonl"
"""Beside it, of a training: a row of figures a line, written as they come."""
PER_CLASS = "per_class.json"
"""Each class's figures, in the order of the labels."""


class Metrics(BaseModel):
    """What a stage measured.

    Attributes:
        values: Figures by metric name; accuracies and APs in percent, as the paper prints them.
        curves: Named series of (x, y) points, x in epochs unless the name says otherwise.
        details: Anything else worth keeping: counts, the names of classes, what was left out.
            Reports show `library` and `library_version`, of the model, `precision` and `device`,
            of its training, and `captions` by the names of the artifact's pictures.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    values: dict[str, float]
    curves: dict[str, list[tuple[float, float]]] = Field(default_factory=dict)
    details: dict[str, JsonValue] = Field(default_factory=dict)


def write_metrics(folder: Path, metrics: Metrics) -> None:
    """Write `metrics.json` into a metrics artifact."""
    (folder / METRICS).write_text(
        json.dumps(metrics.model_dump(mode="json"), indent=1) + "\n", "utf-8"
    )


def write_per_class(folder: Path, rows: Iterable[Mapping[str, JsonValue]]) -> None:
    """Write `per_class.json` into a metrics artifact: a row has the name `class`, and figures."""
    text = json.dumps([dict(row) for row in rows], indent=1)
    (folder / PER_CLASS).write_text(text + "\n", "utf-8")


def read_metrics(folder: Path) -> Metrics:
    """Read `metrics.json` of a metrics artifact.

    Raises:
        DataError: if it is missing or malformed.
    """
    path = folder / METRICS
    try:
        return Metrics.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(f"{path} does not hold metrics: {error}") from None


def tell_platform(executor_input: str, figures: Mapping[str, Mapping[str, float]]) -> None:
    """Give Kubeflow Pipelines the figures of Metrics artifacts, which its pages then show.

    Args:
        executor_input: The platform's description of the task, JSON.
        figures: By name of the output.
    """
    outputs = json.loads(executor_input).get("outputs", {})
    known: dict[str, Any] = {}
    for name, values in figures.items():
        artifacts = outputs.get("artifacts", {}).get(name, {}).get("artifacts", [])
        if artifacts:
            artifact = {key: artifacts[0][key] for key in ("name", "uri") if key in artifacts[0]}
            known[name] = {"artifacts": [{**artifact, "metadata": dict(values)}]}
    file = outputs.get("outputFile")
    if known and file:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(json.dumps({"artifacts": known}), "utf-8")
