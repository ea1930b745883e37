"""The main job: the appendix in miniature, from its compiled file, and what it shows.

Every stage runs in it, or after it; the digest of a stage's code moves with each file that it
executed or read.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import components
from components.core import code_digest
from components.core.config import Config
from components.core.dataset import find_dataset
from components.core.manifest import read_manifest
from components.core.stage import Stage, load_stage, stage_names
from pipelines.backends.kubeflow.compile import compile_plan
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.backends.local.forkserver import MODULES, ForkServer
from pipelines.backends.local.process import ForkedProcess
from pipelines.plan import Plan
from pipelines.recipes import build_plan, load_recipe
from pipelines.tables import filled_cells
from tests.pipelines.launcher import Launcher
from tests.pipelines.tiny import EVERY_STAGE
from tests.pipelines.tracing import traced
from tests.programs import ready

COMPONENTS = Path(components.__path__[0])
LEFT_OUT = "\nIN_CODE_DIGEST = False"
FINDERS = {"core/dataset.py", "datasets/__init__.py"}
"""What a stage that names no data set executes only to take its own digest."""
SLOW = ("torch.utils.tensorboard", "scipy.special", "hotcoco", "jinja2", "matplotlib.figure")
"""What is slow to import, and not the project's."""
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


@dataclass
class Miniature:
    """The appendix after its run, and every further stage after one of its own.

    Attributes:
        plan: Its steps.
        report: The folder that the last of them made.
        configs: What the first run of each stage was told.
        executed: The files below `components/` that it executed or read.
    """

    plan: Plan
    report: Path
    configs: dict[str, Config] = field(default_factory=dict)
    executed: dict[str, set[str]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Miniature]:
    folder = tmp_path_factory.mktemp("miniature")
    plan = build_plan(load_recipe("appendix"), EVERY_STAGE)
    compiled = folder / "appendix.yaml"
    images = {name: f"example/{name}@sha256:12" for name in ("torch", "detectron2")}
    compile_plan(plan, compiled, ClusterOptions(images=images))
    threads = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    server = ready(ForkServer(threads, [*MODULES, *SLOW]))
    traces = folder / "traces"
    traces.mkdir()
    launcher = Launcher(
        compiled,
        root=str(folder / "bucket"),
        work=folder / "pods",
        secrets={"mlpipeline-minio-artifact": {"accesskey": "a", "secretkey": "b"}},
        environment=threads,
        server=server,
        traces=traces,
    )
    launcher.run()

    done = Miniature(plan, Path(launcher.pod("report").output_uri("report")))
    places: dict[str, str] = {}
    for step in plan:
        if step.stage.name in done.configs:
            continue
        pod = launcher.pod(step.name.replace("_", "-"))
        for port in step.stage.outputs:
            places[f"{step.stage.name}/{port}"] = pod.output_uri(port)
        done.configs[step.stage.name] = step.config
        done.executed[step.stage.name] = read_trace(traces / pod.task)
    for name, read in FURTHER.items():
        stage = load_stage(name)
        text = '{"loader": {"workers": 0}}' if "loader" in stage.config.model_fields else "{}"
        outputs = {port: str(folder / name / port) for port in stage.outputs}
        inputs = {port: places[place] for port, place in read.items()}
        places |= {f"{name}/{port}": place for port, place in outputs.items()}
        argv = stage.argv(text, inputs, outputs, None)
        run_traced(server, argv, threads, traces / name)
        done.configs[name] = stage.parse(argv[2:]).config
        done.executed[name] = read_trace(traces / name)
    yield done
    server.stop()


def run_traced(
    server: ForkServer, argv: list[str], environment: Mapping[str, str], trace: Path
) -> None:
    log = trace.with_suffix(".log")
    with log.open("wb") as output:
        pid = server.fork(traced(argv, trace), {**os.environ, **environment}, [output.fileno()])
    assert ForkedProcess(pid).wait() == 0, log.read_text()[-4000:]


def read_trace(path: Path) -> set[str]:
    return set(path.read_text().split())


def test_the_report_has_every_cell_that_was_measured(miniature: Miniature) -> None:
    report = json.loads((miniature.report / "report.json").read_text())
    inputs = read_manifest(miniature.report).inputs
    keys = {name.removeprefix("metrics.") for name in inputs}
    assert keys == set(filled_cells(miniature.plan))
    assert "figure_a1" in (miniature.report / "index.html").read_text()
    assert report["scale"] == "digits"


def test_every_stage_runs_and_is_seen(miniature: Miniature) -> None:
    executed = miniature.executed
    assert executed.keys() == set(stage_names())
    assert {"pretrain/__main__.py", "pretrain/mechanisms.py"} <= executed["pretrain"]
    assert {"datasets/coco/instances.py", "datasets/coco/results.py"} <= executed[
        "detection.evaluate"
    ]
    assert "report/index.html.j2" in executed["report"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's code, to be changed."""
    copy = tmp_path_factory.mktemp("project") / "components"
    return shutil.copytree(COMPONENTS, copy, ignore=shutil.ignore_patterns("__pycache__"))


@pytest.mark.parametrize("stage", stage_names())
def test_the_digest_moves_with_whatever_a_stage_executes(
    miniature: Miniature, project: Path, stage: str
) -> None:
    executed, config = miniature.executed[stage], miniature.configs[stage]
    before = digests(load_stage(stage), config, project)
    contents = {file: (project / file).read_bytes() for file in executed}
    for file, content in contents.items():
        (project / file).write_bytes(content + b"\nCHANGED = 1\n")
    after = digests(load_stage(stage), config, project)
    for file, content in contents.items():
        (project / file).write_bytes(content)
    still = {file for file in executed if before.get(file) == after.get(file)}
    unmoved = {file for file in executed if left_out(project / file)}
    if not config.layouts():
        unmoved |= FINDERS & executed
    assert unmoved <= still
    assert all(declares_others(file, config) for file in still - unmoved), still


def digests(stage: Stage[Any], config: Config, root: Path) -> Mapping[str, str]:
    """Return what the digest of a stage's code is taken of: SHA-256 by file."""
    return code_digest.reachable(code_digest.modules_of(stage, config), [root])


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


def test_nothing_that_trains_or_measures_leaves_itself_out(miniature: Miniature) -> None:
    """What does so carries artifacts, or shows something."""
    files = {file for trace in miniature.executed.values() for file in trace}
    places = {file for file in files if left_out(COMPONENTS / file)}
    assert {file for file in places if not file.startswith("core/")} == {
        "detection/pictures.py",
        "training/signs.py",
        "vision/pictures.py",
    }
