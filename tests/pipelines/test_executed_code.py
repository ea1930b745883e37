"""Every stage runs in miniature, and its digest moves with each file that it executed or read."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import components
from components.core.code_digest import _digest, code_digest
from components.core.config import Config
from components.core.dataset import find_dataset
from components.core.stage import Source, Stage, load_stage, stage_names
from pipelines.plan import Output
from pipelines.recipes import Setting, build_plan, load_recipe
from tests.pipelines.tiny import DETECTORS, EVERY_STAGE

ROOT = Path(__file__).parents[2]
COMPONENTS = Path(components.__path__[0])
MEASURED_ONCE = [Setting(f"detection.{name}", "evaluations", "1") for name in DETECTORS]
ONCE = replace(EVERY_STAGE, settings=(*EVERY_STAGE.settings, *MEASURED_ONCE))
LEFT_OUT = "\nIN_CODE_DIGEST = False"
FINDERS = {"core/dataset.py", "datasets/__init__.py"}
"""What a stage that names no data set executes only to take its own digest."""
FURTHER: Mapping[str, Mapping[str, str]] = {
    "detection.evaluate": {
        "data": "digits/coco",
        "model": "detection.coco/model",
        "backbone": "convert/backbone",
    },
    "segmentation.evaluate": {"data": "digits/voc", "model": "segmentation/model"},
    "classification.features": {"data": "digits/imagenet", "backbone": "convert/backbone"},
    "classification.probe": {"features": "classification.features/features"},
}
"""The stages that the appendix does not have, and what they read: STAGE/PORT."""

pytestmark = pytest.mark.slow


def commands(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield every stage and a command for it, in an order in which they can run."""
    plan = build_plan(load_recipe("appendix"), ONCE)
    done: set[str] = set()
    for step in plan:
        if step.stage.name in done:
            continue
        inputs: dict[str, Source | dict[str, Source]] = {}
        for name, source in step.sources():
            assert isinstance(source, Output)
            made_by = plan.step(source.step).stage.name
            if made_by not in done:
                continue  # the report goes without
            port, _, key = name.partition(".")
            place = str(folder / made_by / source.port)
            if key:
                members = inputs.setdefault(port, {})
                assert isinstance(members, dict)
                members[key] = place
            else:
                inputs[port] = place
        done.add(step.stage.name)
        yield step.stage.name, command(step.stage, step.config.to_json(), inputs, folder)
    for name, read in FURTHER.items():
        places = {port: str(folder / place) for port, place in read.items()}
        stage = load_stage(name)
        config = '{"loader": {"workers": 0}}' if "loader" in stage.config.model_fields else "{}"
        yield name, command(stage, config, places, folder)


def command(
    stage: Stage[Any],
    config: str,
    inputs: Mapping[str, Source | Mapping[str, Source]],
    folder: Path,
) -> list[str]:
    place = folder / stage.name
    outputs = {port: str(place / port) for port in stage.outputs}
    state = str(place / "state") if stage.resumable else None
    return stage.argv(config, inputs, outputs, state)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands are, and what they make."""
    folder = tmp_path_factory.mktemp("miniature")
    (folder / "commands.json").write_text(json.dumps(dict(commands(folder))))
    return folder


@pytest.fixture(scope="module")
def executed(folder: Path) -> Mapping[str, set[str]]:
    """The files below `components/` that each stage executes or reads."""
    (folder / "traces").mkdir()
    driver = [sys.executable, "-m", "tests.pipelines.tracing", "commands.json", "traces"]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        driver,
        check=False,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return {path.name: set(path.read_text().split()) for path in (folder / "traces").iterdir()}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's code, to be changed."""
    copy = tmp_path_factory.mktemp("project") / "components"
    return shutil.copytree(COMPONENTS, copy, ignore=shutil.ignore_patterns("__pycache__"))


def test_every_stage_runs_and_is_seen(executed: Mapping[str, set[str]]) -> None:
    assert executed.keys() == set(stage_names())
    assert {"pretrain/__main__.py", "pretrain/mechanisms.py"} <= executed["pretrain"]
    assert {"datasets/coco/instances.py", "datasets/coco/results.py"} <= executed[
        "detection.evaluate"
    ]
    assert "report/index.html.j2" in executed["report"]


@pytest.mark.parametrize("stage", stage_names())
def test_the_digest_moves_with_whatever_a_stage_executes(
    executed: Mapping[str, set[str]], project: Path, folder: Path, stage: str
) -> None:
    loaded = load_stage(stage)
    argv = json.loads((folder / "commands.json").read_text())[stage]
    config = loaded.parse(argv[2:]).config

    def digest() -> str:
        _digest.cache_clear()
        return code_digest(loaded, config, [project])

    before = digest()
    still = set()
    for file in executed[stage]:
        path = project / file
        content = path.read_bytes()
        path.write_bytes(content + b"\nCHANGED = 1\n")
        if digest() == before:
            still.add(file)
        path.write_bytes(content)
    unmoved = {file for file in executed[stage] if left_out(project / file)}
    if not config.layouts():
        unmoved |= FINDERS & executed[stage]
    assert unmoved <= still
    assert all(declares_others(file, config) for file in still - unmoved), still
    assert digest() == before


def left_out(file: Path) -> bool:
    """Say whether a source, or a package that it is in, says that it changes no result."""
    packages = [folder / "__init__.py" for folder in file.parents]
    return any(LEFT_OUT in path.read_text() for path in (file, *packages) if path.is_file())


def declares_others(file: str, config: Config) -> bool:
    """Say whether a source declares data sets, and none that a config names.

    To find one by its name, all declarations are imported.
    """
    folder, _, name = file.rpartition("/")
    named = {find_dataset(one).folder.rpartition(".")[2] for one in config.layouts().values()}
    declares = folder.startswith("datasets/") and name == "__init__.py"
    return declares and folder.removeprefix("datasets/") not in named


def test_nothing_that_trains_or_measures_leaves_itself_out(
    executed: Mapping[str, set[str]],
) -> None:
    """What does so carries artifacts, or shows something."""
    files = {file for trace in executed.values() for file in trace}
    places = {file for file in files if left_out(COMPONENTS / file)}
    assert {file for file in places if not file.startswith("core/")} == {
        "detection/pictures.py",
        "training/signs.py",
        "vision/pictures.py",
    }
