"""Every recipe compiles to the file that is kept of it."""

from pathlib import Path

import pytest

from pipelines.recipes import ScaleName
from tests.pipelines.golden import FOLDER, cases, compile_recipe, golden

AGAIN = "compile them again with `python -m tests.pipelines.golden` and read the difference"
CASES = cases()


@pytest.mark.parametrize(("recipe", "scale"), CASES)
def test_a_recipe_compiles_to_its_golden_file(
    recipe: str, scale: ScaleName, tmp_path: Path
) -> None:
    expected = golden(recipe, scale)
    assert expected.exists(), f"{expected.name} is missing: {AGAIN}"
    compiled = tmp_path / expected.name

    compile_recipe(recipe, scale, compiled)

    assert compiled.read_text("utf-8") == expected.read_text("utf-8"), AGAIN


def test_every_golden_file_has_its_recipe() -> None:
    assert set(FOLDER.glob("*.yaml")) <= {golden(recipe, scale) for recipe, scale in CASES}, AGAIN
