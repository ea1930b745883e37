"""What conversion refuses, and what it says: nothing partial, damaged or hostile gets through."""

import copyreg
import io
import json
import os
import pickle
import re
import zipfile
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from components.convert import STAGE, ConvertConfig
from components.convert.encoders import load_tensors
from components.convert.pickles import PickledCheckpoint, TensorRecord
from components.convert.sources import locate
from components.core.errors import ConfigError, DataError
from components.core.main import run
from components.vision.backbones import random_backbone
from tests.convert.making import artifact, convert, moco_checkpoint, supervised, trained_encoder


def saved(content: Any, path: Path, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def refusal(checkpoint: Path | None, tmp_path: Path, **config: object) -> str:
    with pytest.raises(DataError) as error:
        convert(checkpoint, tmp_path / "backbone", **config)
    assert not (tmp_path / "backbone" / "manifest.json").exists()
    return str(error.value)


class Described:
    """Pickles as an array that says of itself what it is told to say."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def __reduce__(self) -> Any:
        return np.zeros(1).__reduce__()[0], (np.ndarray, (0,), b"b"), self.state


class Hostile:
    """Runs a command when it is unpickled by anything that obeys."""

    def __init__(self, command: Callable[..., Any], *arguments: Any) -> None:
        self.command, self.arguments = command, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.command, self.arguments


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("command", "name"), [(os.system, "posix.system"), (eval, "eval"), (os.mkdir, "posix.mkdir")]
)
def test_a_hostile_pickle_is_refused_before_it_acts(
    tmp_path: Path, command: Callable[..., Any], name: str, legacy: bool
) -> None:
    mark = tmp_path / "mark"
    argument = {
        "posix.system": f"touch {mark}",
        "eval": f"open({str(mark)!r}, 'w')",
        "posix.mkdir": str(mark),
    }[name]
    state = {**moco_checkpoint(trained_encoder()), "extra": Hostile(command, argument)}
    message = refusal(saved(state, tmp_path / "moco.pth.tar", legacy), tmp_path)
    assert name in message
    assert "nothing of it was run" in message
    assert not mark.exists()
    torch.load(tmp_path / "moco.pth.tar", weights_only=False)  # what it does where it is obeyed
    assert mark.exists()


def test_a_bare_hostile_pickle_is_refused(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "bare.pkl").write_bytes(pickle.dumps(Hostile(os.mkdir, str(mark))))
    assert "posix.mkdir" in refusal(tmp_path / "bare.pkl", tmp_path)
    assert not mark.exists()


def test_a_whole_pickled_model_is_refused_with_the_way_out(tmp_path: Path) -> None:
    message = refusal(saved(trained_encoder(), tmp_path / "model.pth"), tmp_path)
    assert "components.vision.backbones.Backbone" in message
    assert "save its state_dict()" in message


@pytest.mark.parametrize(
    "name",
    [
        b"collections\nCounter",
        b"collections\nOrderedDict",
        b"numpy\ndtype",
        b"numpy\nndarray",
        b"torch._utils\n_rebuild_tensor_v2",
        b"torch.nn.parameter\nParameter",
        b"torch\nSize",
        b"torch\nFloatStorage",
    ],
)
@pytest.mark.parametrize("state", [b"}X\x01\x00\x00\x00aK\x01s", b"(N}X\x01\x00\x00\x00aK\x01st"])
def test_a_pickle_cannot_set_attributes_of_what_is_permitted(
    tmp_path: Path, name: bytes, state: bytes
) -> None:
    (tmp_path / "bad.pth").write_bytes(b"c" + name + b"\n" + state + b"b.")
    assert re.search("AttributeError|TypeError", refusal(tmp_path / "bad.pth", tmp_path))


@pytest.mark.parametrize(
    "state",
    [
        (1, None, np.dtype("f4"), False, b""),
        (1, (2.5,), np.dtype("f4"), False, b"1234"),
        (1, (2,), np.dtype("f4"), False, b"1234"),
        (1, (2,), np.dtype("O"), False, [1, 2]),
        (1, (2,), "f4", False, b"12345678"),
        (1,),
    ],
)
def test_an_array_that_describes_itself_badly_is_refused(tmp_path: Path, state: Any) -> None:
    arrays: dict[str, Any] = {n: t.numpy() for n, t in trained_encoder().state_dict().items()}
    arrays["bn1.bias"] = Described(state)
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"model": arrays}))
    message = refusal(tmp_path / "bad.pkl", tmp_path)
    assert "bn1.bias" in message or "not a whole file" in message


def test_a_dictionary_that_holds_itself_is_read_once(tmp_path: Path) -> None:
    content: dict[str, Any] = {"state_dict": trained_encoder().state_dict()}
    content |= {"self": content, "again": {"self": content}}
    convert(saved(content, tmp_path / "x.pth"), tmp_path / "backbone")


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_are_read_as_torch_reads_them(tmp_path: Path, legacy: bool) -> None:
    base = torch.arange(24.0)
    tensors = {
        "whole": base,
        "shared view": base[4:16].view(3, 4).t(),
        "scalar": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        **{
            str(dtype): torch.tensor([0, 1, 1]).to(dtype)
            for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.bool)
        },
    }
    checkpoint = PickledCheckpoint(saved(tensors, tmp_path / "tensors.pth", legacy))
    read = load_tensors(checkpoint, checkpoint.content)
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor.detach())
        assert read[name].is_contiguous()


class ParameterOf2017:
    """Pickles as a parameter did before torch 0.4: made new from its tensor, then given a state."""

    __class__ = torch.nn.Parameter  # type: ignore[assignment]

    def __init__(self, data: Tensor) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: object) -> Any:
        return copyreg.__newobj__, (torch.nn.Parameter, self.data), (True, False, OrderedDict())  # type: ignore[attr-defined]


def test_parameters_saved_before_torch_0_4_are_read(tmp_path: Path) -> None:
    """Torchvision's first ResNet-50 has them, and its statistics as plain tensors."""
    tensor = torch.randn(3)
    content = OrderedDict(weight=ParameterOf2017(tensor), running_mean=tensor + 1)
    checkpoint = PickledCheckpoint(saved(content, tmp_path / "old.pth", legacy=True))
    read = load_tensors(checkpoint, checkpoint.content)
    assert torch.equal(read["weight"], tensor)
    assert torch.equal(read["running_mean"], tensor + 1)


def test_storages_saved_from_a_gpu_are_read_on_the_cpu(tmp_path: Path) -> None:
    path = saved(moco_checkpoint(trained_encoder()), tmp_path / "moco.pth.tar", legacy=True)
    cpu, gpu = (b"X" + len(name).to_bytes(4, "little") + name for name in (b"cpu", b"cuda:0"))
    assert path.read_bytes().count(cpu) == 1
    path.write_bytes(path.read_bytes().replace(cpu, gpu))
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.load(path, weights_only=True)
    convert(path, tmp_path / "backbone")


@pytest.mark.parametrize(
    "change",
    [
        {"offset": 1},
        {"offset": -1},
        {"size": (5,)},
        {"size": (2, 2), "stride": (3, 1)},
        {"size": (2**40,), "stride": (0,)},
        {"size": (2.0,)},
        {"size": (2, 2)},
        {"stride": (-1,)},
        {"storage": "0"},
    ],
)
def test_a_tensor_cannot_reach_outside_its_storage(tmp_path: Path, change: dict[str, Any]) -> None:
    checkpoint = PickledCheckpoint(saved({"x": torch.ones(4)}, tmp_path / "x.pth"))
    record: TensorRecord = checkpoint.content["x"]._replace(**change)
    with pytest.raises(DataError, match=r"tensor x (reaches|has)"):
        load_tensors(checkpoint, {"x": record})


def test_a_storage_that_claims_more_than_the_file_has_is_refused(tmp_path: Path) -> None:
    checkpoint = PickledCheckpoint(saved({"x": torch.ones(4)}, tmp_path / "x.pth"))
    record: TensorRecord = checkpoint.content["x"]
    longer = record._replace(storage=record.storage._replace(numel=5), size=(5,))
    with pytest.raises(DataError, match="should have 5 elements, and has 16 bytes"):
        load_tensors(checkpoint, {"x": longer})


@pytest.fixture(scope="module", params=["zip", "legacy"])
def whole(request: pytest.FixtureRequest) -> bytes:
    buffer = io.BytesIO()
    torch.save(
        supervised(random_backbone("resnet_digits", 0)),
        buffer,
        _use_new_zipfile_serialization=request.param == "zip",
    )
    return buffer.getvalue()


@settings(max_examples=40, deadline=None)
@given(fraction=st.floats(0, 1, exclude_max=True))
def test_a_cut_file_is_refused_wherever_it_is_cut(
    tmp_path_factory: pytest.TempPathFactory, whole: bytes, fraction: float
) -> None:
    path = tmp_path_factory.mktemp("cut") / "cut.pth"
    path.write_bytes(whole[: int(len(whole) * fraction)])
    with pytest.raises(DataError, match="not a whole file"):
        PickledCheckpoint(path)


def test_an_archive_saved_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = saved({"x": torch.full((3,), 3.25)}, tmp_path / "x.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    with zipfile.ZipFile(path) as archive:
        assert {entry.CRC for entry in archive.infolist()} == {0}
    checkpoint = PickledCheckpoint(path)
    assert load_tensors(checkpoint, checkpoint.content)["x"].tolist() == [3.25] * 3


@pytest.mark.parametrize(
    "beside",
    [
        {"best": np.float64(71.2), "meters": np.zeros(3)},
        {"milestones": Counter({60: 1}), "seen": {"a", "b"}, "state": defaultdict(dict)},
        {"args": Namespace(device=torch.device("cpu"), output=PurePosixPath("x"))},
        {"amp": torch.float16, "note": b"\x00\x01", "z": 1j},
    ],
)
def test_plain_data_beside_the_weights_is_passed_over(
    tmp_path: Path, beside: dict[str, object]
) -> None:
    path = saved({"state_dict": supervised(trained_encoder()), **beside}, tmp_path / "x.pth")
    located = locate(path, ConvertConfig(architecture="resnet_digits"))
    assert set(located.records) == set(trained_encoder().state_dict())
    assert {"fc.weight", "fc.bias"} <= set(located.ignored)


def test_a_changed_byte_in_a_weight_is_noticed(tmp_path: Path) -> None:
    path = saved({"x": torch.full((1000,), 3.25)}, tmp_path / "x.pth")
    data = bytearray(path.read_bytes())
    data[data.index(torch.full((10,), 3.25).numpy().tobytes())] ^= 1
    path.write_bytes(data)
    checkpoint = PickledCheckpoint(path)
    with pytest.raises(DataError, match="the bytes of x are damaged"):
        load_tensors(checkpoint, checkpoint.content)


def test_a_web_page_saved_as_a_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_text("<!doctype html><title>Not found</title>")
    assert "fetch it again" in refusal(tmp_path / "page.pth", tmp_path)


def test_a_partial_encoder_names_what_is_missing(tmp_path: Path) -> None:
    checkpoint = moco_checkpoint(trained_encoder())
    for name in ("conv1.weight", "layer3.0.bn1.running_var"):
        del checkpoint["state_dict"][f"module.encoder_q.{name}"]
    message = refusal(saved(checkpoint, tmp_path / "moco.pth.tar"), tmp_path)
    assert "2 missing: conv1.weight, layer3.0.bn1.running_var" in message


def test_another_architecture_names_what_does_not_fit(tmp_path: Path) -> None:
    path = saved(supervised(trained_encoder()), tmp_path / "small.pth")
    message = refusal(path, tmp_path, architecture="resnet50")
    assert "does not fit a resnet50" in message
    assert "conv1.weight (16, 3, 3, 3) instead of (64, 3, 7, 7)" in message


def test_a_prefix_that_is_not_there_is_told_with_the_one_that_is(tmp_path: Path) -> None:
    """The released converter writes an empty model here, and says nothing."""
    state = {f"backbone.{name}": t for name, t in trained_encoder().state_dict().items()}
    path = saved({"state_dict": state}, tmp_path / "other.pth")
    message = refusal(path, tmp_path, prefix="encoder.")
    assert "begins with 'encoder.'. Found: state_dict.backbone.conv1.weight" in message
    assert "set prefix to 'backbone.'" in message
    convert(path, tmp_path / "converted", prefix="backbone.")


def test_a_whole_moving_average_does_not_stand_in_for_a_partial_encoder(tmp_path: Path) -> None:
    checkpoint = moco_checkpoint(trained_encoder())
    del checkpoint["state_dict"]["module.encoder_q.layer2.0.bn1.bias"]
    path = saved(checkpoint, tmp_path / "moco.pth.tar")
    message = refusal(path, tmp_path)
    assert "1 missing: layer2.0.bn1.bias" in message
    assert "or take prefix=module.encoder_k." in message
    convert(path, tmp_path / "converted", prefix="module.encoder_k.")


def test_tensors_of_no_resnet_are_told(tmp_path: Path) -> None:
    path = saved({"weight": torch.ones(2)}, tmp_path / "linear.pth")
    assert "Found: weight" in refusal(path, tmp_path)
    assert "begins with 'x.'" in refusal(path, tmp_path, prefix="x.")


def test_a_checkpoint_without_tensors_tells_what_it_holds(tmp_path: Path) -> None:
    path = saved({"epoch": 3, "state_dict": {}}, tmp_path / "empty.pth")
    assert "holds no tensors, but epoch, state_dict" in refusal(path, tmp_path)


def not_finite(tensors: dict[str, Tensor]) -> None:
    tensors["layer1.0.conv1.weight"][0, 0, 0, 0] = torch.nan


def quantised(tensors: dict[str, Tensor]) -> None:
    tensors["layer1.0.conv1.weight"] = tensors["layer1.0.conv1.weight"].to(torch.int8)


@pytest.mark.parametrize("change", [not_finite, quantised])
def test_weights_that_are_no_numbers_are_named(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], None]
) -> None:
    tensors = supervised(trained_encoder())
    change(tensors)
    assert "layer1.0.conv1.weight" in refusal(saved(tensors, tmp_path / "bad.pth"), tmp_path)


def test_another_hash_is_refused_and_the_right_one_passes(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_file(supervised(trained_encoder()), path)
    message = refusal(path, tmp_path, sha256="0123456789abcdef")
    found = message.partition("has SHA-256 ")[2][:64]
    convert(path, tmp_path / "converted", sha256=found[:8])


def test_an_insisted_source_is_checked(tmp_path: Path) -> None:
    path = saved(supervised(trained_encoder()), tmp_path / "resnet.pth")
    message = refusal(path, tmp_path, source="moco")
    assert "is of source 'resnet', and the config insists on 'moco'" in message


def test_a_converted_backbone_is_not_converted_again(tmp_path: Path) -> None:
    folder = convert(None, tmp_path / "random", source="random")
    assert "use it as it is" in refusal(folder, tmp_path)


def test_an_artifact_of_another_architecture_is_refused(tmp_path: Path) -> None:
    folder = artifact(tmp_path / "encoder", trained_encoder(), "pretrain", mechanism="moco")
    assert "set architecture to resnet_digits" in refusal(folder, tmp_path, architecture="resnet50")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "source 'auto' needs --input.checkpoint"),
        ({"source": "random", "prefix": "x."}, "prefix is for a file"),
        ({"source": "pretrain", "sha256": "01234567"}, "sha256 is for a file"),
        ({"source": "moco", "seed": 3}, "seed is for source 'random'"),
        ({"sha256": "not a hash"}, "sha256"),
        ({"sorce": "random"}, "did you mean 'source'"),
    ],
)
def test_a_config_that_cannot_work_is_refused(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        convert(None, tmp_path / "backbone", **config)


def test_random_with_a_checkpoint_is_refused(tmp_path: Path) -> None:
    path = saved(supervised(trained_encoder()), tmp_path / "resnet.pth")
    with pytest.raises(ConfigError, match="reads no checkpoint"):
        convert(path, tmp_path / "backbone", source="random")


def test_a_person_sees_one_message_and_an_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved({"weight": torch.ones(2)}, tmp_path / "linear.pth")
    config = json.dumps({"architecture": "resnet_digits"})
    arguments = ["--config", config, "--input.checkpoint", str(path)]
    code = run(STAGE, [*arguments, "--output.backbone", str(tmp_path / "backbone")])
    assert code == 65
    assert "Traceback" not in capsys.readouterr().err
