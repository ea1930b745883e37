"""`moco export`: a backbone of a real run for another tool, with a card that tells the truth."""

import io
import re
from pathlib import Path

import pytest

from components.core.errors import ExitCode
from components.core.metrics import read_metrics
from pipelines.__main__ import main
from pipelines.backends.local.execute import execute
from pipelines.backends.local.machine import Machine
from pipelines.backends.local.sources import find_sources
from pipelines.cli.display import PlainDisplay
from pipelines.recipes import Options, build_plan, load_recipe
from pipelines.runs.folder import Run, create_run
from tests.pipelines.tiny import EVERY_STAGE

pytestmark = pytest.mark.slow

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that measured random features."""
    names = {"digits", "classification.linear"}
    settings = tuple(setting for setting in EVERY_STAGE.settings if setting.target in names)
    options = Options(scale="digits", rows=("random",), settings=settings)
    plan = build_plan(load_recipe("linear"), options)
    runs = tmp_path_factory.mktemp("runs")
    run = create_run(runs, plan)
    sources = find_sources(plan, {}, runs)
    assert execute(run, sources, Machine(2, (), 2), PlainDisplay(io.StringIO())) == ExitCode.OK
    return run


@pytest.fixture
def measured(executed: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """It, where commands look for runs."""
    monkeypatch.setenv("MOCO_RUNS", str(executed.folder.parent))
    return executed


def test_a_backbone_goes_out_with_what_was_measured_of_it(
    measured: Run, tmp_path: Path, capsys: Capture
) -> None:
    pytest.importorskip("onnx", reason="needs onnx")
    folder = tmp_path / "for others"
    command = ["export", measured.id, "convert_random", str(folder), "--to", "onnx"]

    assert main(command) == ExitCode.OK
    assert f'InferenceSession("{folder}/model.onnx")' in capsys.readouterr().out
    card = (folder / "README.md").read_text()
    top1 = read_metrics(measured.artifact("linear_random_0", "metrics")).values["top1"]
    assert re.search(rf"\| ImageNet \| top-1 \| {top1:.1f} \| 1 \|  \|", card)
    assert "convert.backbone  SHA-256" in card
    assert f"run `{measured.id}`" in card

    assert main(command) == ExitCode.USAGE
    assert "is there already" in capsys.readouterr().err


def test_what_cannot_be_exported_leaves_nothing(
    measured: Run, tmp_path: Path, capsys: Capture
) -> None:
    for step, to, words in (
        ("convert_random", "timm", "timm has no resnet_digits; onnx takes any"),
        ("linear_random_0", "onnx", "backbones are what convert_random made"),
        ("convert_randon", "onnx", "did you mean 'convert_random'?"),
    ):
        command = ["export", measured.id, step, str(tmp_path / "out"), "--to", to]
        assert main(command) == ExitCode.USAGE
        assert words in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
