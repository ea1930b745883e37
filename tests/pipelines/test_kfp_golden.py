"""Every recipe compiles to what is kept of it."""

import difflib
from pathlib import Path

import pytest

from pipelines.recipes import ScaleName
from tests.pipelines.golden import (
    FOLDER,
    WHOLE,
    cases,
    compile_recipe,
    golden,
    summaries,
    summarise,
)

AGAIN = "compile them again with `make golden` and read the difference"
CASES = cases()


@pytest.fixture(scope="module")
def kept() -> dict[str, str]:
    """The summaries by their pipelines."""
    return {text.partition(":")[0]: text.strip() for text in summaries()}


@pytest.mark.parametrize(("recipe", "scale"), CASES)
def test_a_recipe_compiles_to_what_is_kept_of_it(
    recipe: str, scale: ScaleName, tmp_path: Path, kept: dict[str, str]
) -> None:
    text = compile_recipe(recipe, scale, tmp_path / "pipeline.yaml")

    if (recipe, scale) in WHOLE:
        assert text == golden(recipe, scale).read_text("utf-8"), AGAIN
    expected = kept[f"{recipe}, {scale}"].splitlines()
    compiled = summarise(recipe, scale, text).strip().splitlines()
    if compiled == expected:
        return
    if compiled[1:] == expected[1:]:
        pytest.fail(
            f"the digest is another one, and the summary shows no difference: it is in what "
            f"summaries leave out, which the pipelines that are kept whole have too; {AGAIN}"
        )
    changed = difflib.unified_diff(expected[1:], compiled[1:], "kept", "compiled", n=0, lineterm="")
    pytest.fail("\n".join([*changed, AGAIN]))


def test_what_is_kept_is_of_recipes_that_there_are(kept: dict[str, str]) -> None:
    assert kept.keys() == {f"{recipe}, {scale}" for recipe, scale in CASES}, AGAIN
    assert {path.name for path in FOLDER.glob("*.yaml")} == {
        golden(recipe, scale).name for recipe, scale in WHOLE
    }, AGAIN


def test_a_summary_moves_with_what_it_tells(tmp_path: Path) -> None:
    text = compile_recipe("linear", "full", tmp_path / "pipeline.yaml")
    before = summarise("linear", "full", text).splitlines()
    for old, new in (
        ("- components.pretrain\n", "- components.convert\n"),
        ("outputArtifactKey: encoder", "outputArtifactKey: metrics"),
        ("mountPath: /dev/shm", "mountPath: /dev/shm2"),
        ("defaultValue: 320Gi", "defaultValue: 321Gi"),
        ("/data/imagenet", "/data/other"),
    ):
        assert old in text, old
        after = summarise("linear", "full", text.replace(old, new)).splitlines()
        assert after[0] != before[0]
        assert after[1:] != before[1:], old
