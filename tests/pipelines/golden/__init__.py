"""The compiled pipelines of all recipes, kept as files: a change of one is seen in review.

A few are kept whole, one for each kind of thing that can change; of every pipeline a digest and a
summary of what it runs is in `summary.txt`. `make golden` compiles them again.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pipelines.backends.kubeflow.compile import compile_plan
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.plan import Existing
from pipelines.recipes import (
    DataColumn,
    Options,
    ScaleName,
    build_plan,
    load_recipe,
    recipe_names,
)
from tests.pipelines.golden.summary import summarise

FOLDER = Path(__file__).parent
SUMMARY = FOLDER / "summary.txt"
# The default is what was built last here.
CLUSTER = ClusterOptions(
    images={name: f"moco-transfer/{name}:golden" for name in ("torch", "detectron2")}
)
SCALES: tuple[ScaleName, ...] = get_args(ScaleName)
WHOLE: Mapping[tuple[str, ScaleName], str] = {
    ("linear", "full"): "GPUs, mounted data, a pre-training and what is trained from it",
    ("densepose", "full"): "the image of detectron2, and data for two trainings",
    ("shuffling_bn", "digits"): "the miniature without GPUs, a figure, variants of one stage",
    ("coco", "digits"): "data that a step writes, a report of two tables of several columns",
}
"""What is kept whole, and for what."""


def cases() -> list[tuple[str, ScaleName]]:
    """Return every recipe at every scale."""
    return [(recipe, scale) for recipe in recipe_names() for scale in SCALES]


def golden(recipe: str, scale: ScaleName) -> Path:
    """Return the file of a recipe at a scale that is kept whole."""
    return FOLDER / (f"{recipe}.yaml" if scale == "full" else f"{recipe}.{scale}.yaml")


def options_of(recipe: str, scale: ScaleName) -> dict[str, Any]:
    """Return what a recipe cannot do without: rows and columns where it has none of its own."""
    if recipe != "transfer" or scale == "digits":
        return {}
    return {
        "own": {"mine": Existing("s3://bucket/mine.pth", "Model")},
        "own_columns": {
            "birds": DataColumn("imagenet", "birds"),
            "parts": DataColumn("coco", "parts"),
            "leaves": DataColumn("masks", "s3://bucket/leaves"),
        },
        "labels": (10.0, 100.0),
    }


def compile_recipe(recipe: str, scale: ScaleName, path: Path) -> str:
    """Compile a recipe as it stands, with one trial: the others differ in nothing but the seed."""
    given = options_of(recipe, scale)
    plan = build_plan(load_recipe(recipe), Options(scale=scale, trials=1, **given))
    compile_plan(plan, path, CLUSTER)
    return path.read_text("utf-8")


def summaries() -> Iterator[str]:
    """Yield what is kept of each pipeline in the summary."""
    yield from SUMMARY.read_text("utf-8").split("\n\n")


def regenerate() -> None:
    """Compile all recipes again."""
    told = []
    for path in FOLDER.glob("*.yaml"):
        path.unlink()
    for recipe, scale in cases():
        path = golden(recipe, scale)
        told.append(summarise(recipe, scale, compile_recipe(recipe, scale, path)))
        if (recipe, scale) not in WHOLE:
            path.unlink()
    SUMMARY.write_text("\n".join(told), "utf-8")
