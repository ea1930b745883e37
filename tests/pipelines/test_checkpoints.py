"""A checkpoint that cannot be used is refused when the plan is made, before the first step."""

from pathlib import Path

import pytest
import torch

from components.core.errors import ExitCode
from components.vision.architectures import Architecture
from pipelines.__main__ import main
from tests.convert.making import artifact, moco_checkpoint, trained_encoder
from tests.pipelines.test_cli import imported_by, refused

pytestmark = pytest.mark.usefixtures("runs")

Capture = pytest.CaptureFixture[str]


def arguments(checkpoint: Path, *more: str, scale: str = "digits") -> list[str]:
    own = ["--rows", "random", "--row", f"mine={checkpoint}"]
    return ["plan", "linear", "--scale", scale, *own, *more]


def saved(folder: Path, architecture: Architecture, legacy: bool = False) -> Path:
    path = folder / "mein encoder ü.pth.tar"
    content = moco_checkpoint(trained_encoder(architecture))
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def test_a_checkpoint_that_fits_is_planned_without_torch_or_numpy(tmp_path: Path) -> None:
    modules = imported_by(*arguments(saved(tmp_path, "resnet_digits")))
    assert "components.convert.sources" in modules
    assert not modules & {"torch", "numpy", "safetensors"}


def test_a_resnet50_is_not_for_the_miniature(tmp_path: Path, capsys: Capture) -> None:
    code, message = refused(arguments(saved(tmp_path, "resnet50")), capsys)
    assert code == ExitCode.BAD_DATA
    assert "convert_mine: " in message
    assert "a ResNet-50 under 'module.encoder_q.' does not fit a resnet_digits" in message
    assert "`--scale digits` takes and pre-trains; larger ones are for `--scale full`" in message


def test_the_miniatures_encoder_is_not_for_full_scale(tmp_path: Path, capsys: Capture) -> None:
    path = saved(tmp_path, "resnet_digits")
    code, message = refused(arguments(path, scale="full"), capsys)
    assert code == ExitCode.BAD_DATA
    assert "the miniature's encoder, resnet_digits, under 'module.encoder_q.'" in message


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.99])
def test_a_cut_file_is_told(tmp_path: Path, legacy: bool, fraction: float, capsys: Capture) -> None:
    path = saved(tmp_path, "resnet_digits", legacy)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    code, message = refused(arguments(path), capsys)
    assert code == ExitCode.BAD_DATA
    assert f"{path} is not a whole file" in message


def test_a_choice_between_encoders_is_made_by_an_option(tmp_path: Path, capsys: Capture) -> None:
    student, teacher = (trained_encoder(seed=seed).state_dict() for seed in (0, 1))
    path = tmp_path / "both.pth"
    torch.save({"student": student, "teacher": teacher}, path)
    code, message = refused(arguments(path), capsys)
    assert code == ExitCode.BAD_DATA
    assert "prefix=teacher." in message
    assert "--set convert_mine.FIELD=VALUE" in message
    assert main(arguments(path, "--set", "convert_mine.prefix=teacher.")) == 0


def test_an_artifact_of_another_scale_is_told(tmp_path: Path, capsys: Capture) -> None:
    folder = artifact(tmp_path / "made", trained_encoder(), "pretrain", mechanism="moco")
    assert main(arguments(folder)) == 0
    code, message = refused(arguments(folder, scale="full"), capsys)
    assert code == ExitCode.BAD_DATA
    assert "is a resnet_digits, the miniature's own (`--scale digits` takes" in message


def test_a_prefix_for_an_artifact_is_told(tmp_path: Path, capsys: Capture) -> None:
    folder = artifact(tmp_path / "made", trained_encoder(), "pretrain", mechanism="moco")
    _, message = refused(arguments(folder, "--set", "convert_mine.prefix=x."), capsys)
    assert "prefix is for a file from elsewhere" in message
