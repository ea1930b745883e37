"""The compiled pipeline of every recipe, kept as files: a change of one is seen in review.

`python -m tests.pipelines.golden` compiles them again.
"""

from pathlib import Path
from typing import get_args

from pipelines.backends.cluster import ClusterOptions
from pipelines.backends.kfp import compile_plan
from pipelines.recipes import Options, ScaleName, build_plan, load_recipe, recipe_names

FOLDER = Path(__file__).parent
# The default is what was built last here.
CLUSTER = ClusterOptions(
    images={name: f"moco-transfer/{name}:golden" for name in ("torch", "detectron2")}
)
SCALES: tuple[ScaleName, ...] = get_args(ScaleName)


def cases() -> list[tuple[str, ScaleName]]:
    """Return every recipe at every scale."""
    return [(recipe, scale) for recipe in recipe_names() for scale in SCALES]


def golden(recipe: str, scale: ScaleName) -> Path:
    """Return the file of a recipe at a scale."""
    return FOLDER / (f"{recipe}.yaml" if scale == "full" else f"{recipe}.{scale}.yaml")


def compile_recipe(recipe: str, scale: ScaleName, path: Path) -> None:
    """Compile a recipe as it stands, with one trial: the others differ in nothing but the seed."""
    plan = build_plan(load_recipe(recipe), Options(scale=scale, trials=1))
    compile_plan(plan, path, CLUSTER)


def regenerate() -> None:
    """Compile all recipes, and remove the files of those that are gone."""
    wanted = {golden(recipe, scale) for recipe, scale in cases()}
    for path in set(FOLDER.glob("*.yaml")) - wanted:
        path.unlink()
    for recipe, scale in cases():
        compile_recipe(recipe, scale, golden(recipe, scale))
