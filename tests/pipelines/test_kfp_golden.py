"""Every recipe compiles to what is kept of it."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.recipes import ScaleName
from tests.pipelines.golden import FOLDER, SCALES, WHOLE, cases, compile_recipe, golden, summaries
from tests.pipelines.golden.summary import LOADER, difference, summarise

AGAIN = "compile them again with `make golden` and read the difference"
CASES = cases()
Compiled = Callable[[str, ScaleName], str]


@pytest.fixture(scope="module")
def kept() -> dict[str, str]:
    """The summaries by their pipelines."""
    return {text.partition(":")[0]: text.strip() for text in summaries()}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """Return what compiles a recipe, once."""
    folder = tmp_path_factory.mktemp("compiled")
    return cache(lambda recipe, scale: compile_recipe(recipe, scale, folder / "pipeline.yaml"))


@pytest.fixture(scope="module")
def linear(compiled: Compiled) -> str:
    """A pipeline with GPUs, mounted data and credentials."""
    return compiled("linear", "full")


@pytest.mark.parametrize(("recipe", "scale"), CASES)
def test_a_recipe_compiles_to_what_is_kept_of_it(
    recipe: str, scale: ScaleName, compiled: Compiled, kept: dict[str, str]
) -> None:
    text = compiled(recipe, scale)

    whole = None
    if (recipe, scale) in WHOLE:
        whole = (golden(recipe, scale).read_text("utf-8"), text)
    differs = difference(
        kept.get(f"{recipe}, {scale}", ""), summarise(recipe, scale, text), whole=whole
    )
    if differs:
        pytest.fail(f"{differs}\n{AGAIN}", pytrace=False)


def test_what_is_kept_is_of_recipes_that_there_are(kept: dict[str, str]) -> None:
    assert kept.keys() == {f"{recipe}, {scale}" for recipe, scale in CASES}, AGAIN
    assert {path.name for path in FOLDER.glob("*.yaml")} == {
        golden(recipe, scale).name for recipe, scale in WHOLE
    }, AGAIN


def test_every_construct_stands_in_a_pipeline_that_is_kept_whole(compiled: Compiled) -> None:
    whole = {
        field
        for recipe, scale in WHOLE
        for field in _constructs(golden(recipe, scale).read_text("utf-8"))
    }

    for scale in SCALES:
        assert _constructs(compiled("appendix", scale)) <= whole, "keep one whole that has them"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "- components.pretrain\n",
            "- components.convert\n",
            "pretrain: python -m components.convert",
        ),
        ("outputArtifactKey: encoder", "outputArtifactKey: metrics", "pretrain-moco-in1m.metrics"),
        ("mountPath: /dev/shm", "mountPath: /dev/shm2", "/dev/shm2 64Gi"),
        ("sizeLimit: 64Gi", "sizeLimit: 65Gi", "/dev/shm 65Gi"),
        ("Parameter: image_torch", "Parameter: image_other", "pretrain in image_other"),
        ("Parameter: pvc_imagenet", "Parameter: pvc_other", "claims pvc_other at /data/imagenet"),
        ("envVar: AWS_ACCESS_KEY_ID", "envVar: OTHER", "store_secret as OTHER"),
        ("defaultValue: 320Gi", "defaultValue: 321Gi", "memory_pretrain=321Gi"),
        ("--gpus_pretrain", "--gpus_classification_linear", "gpus_classification_linear=8"),
        ("/data/imagenet", "/data/other", "data /data/other"),
    ],
)
def test_a_difference_tells_what_a_summary_shows(
    linear: str, old: str, new: str, told: str
) -> None:
    assert old in linear
    before, after = (
        summarise("linear", "full", text) for text in (linear, linear.replace(old, new))
    )

    differs = (difference(before, after) or "").splitlines()

    assert differs[0].startswith("--- summary.txt, kept")
    assert any(told in line for line in differs if line.startswith("+"))


def test_a_difference_that_no_summary_shows_is_said_to_be_one(linear: str) -> None:
    other = linear.replace("maxRetryCount: 3", "maxRetryCount: 4")
    before, after = (summarise("linear", "full", text) for text in (linear, other))

    assert difference(before, before, whole=(linear, linear)) is None
    assert (difference(before, after) or "").startswith("only the digest: ")
    assert "+          maxRetryCount: 4" in (difference(before, after, whole=(linear, other)) or "")


def test_a_pipeline_is_the_same_bytes_when_compiled_again(linear: str, tmp_path: Path) -> None:
    assert compile_recipe("linear", "full", tmp_path / "pipeline.yaml") == linear


def _constructs(text: str) -> set[tuple[str, ...]]:
    """Return the fields that a compiled pipeline uses, whatever its stages are called."""
    own = {"components", "executors", "tasks", "artifacts", "parameters", "labels"}

    def fields(value: Any, path: tuple[str, ...]) -> set[tuple[str, ...]]:
        if isinstance(value, list):
            return {field for item in value for field in fields(item, path)}
        if not isinstance(value, dict):
            return {path}
        named = path[-1:] and path[-1] in own
        return {
            field
            for key, item in value.items()
            for field in fields(item, (*path, "*" if named else key))
        }

    return {field for part in yaml.load_all(text, LOADER) for field in fields(part, ())}
