"""Whoever wrote a checkpoint, its encoder is found whole, and what lies beside it is named."""

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from components.convert.detectron2_layout import detectron2_tensors
from components.core.errors import DataError
from components.core.manifest import verify
from components.vision.backbones import Backbone, load_backbone
from tests.convert.making import convert, features, trained_encoder

Tensors = Mapping[str, Tensor]


def under(prefix: str, tensors: Tensors) -> dict[str, Tensor]:
    """The tensors with a prefix before each name."""
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def numbered(tensors: Tensors, children: tuple[str, ...]) -> dict[str, Tensor]:
    """What `nn.Sequential(*children)` calls them; some children have no tensors."""
    split = ((*name.partition("."), tensor) for name, tensor in tensors.items())
    return {f"{children.index(child)}.{rest}": tensor for child, _, rest, tensor in split}


def hugging_face(tensors: Tensors) -> dict[str, Tensor]:
    """What `ResNetModel` calls them."""
    named = {}
    for name, tensor in tensors.items():
        *block, module, rest = (
            name.replace("downsample.0", "shortcut.convolution")
            .replace("downsample.1", "shortcut.normalization")
            .rsplit(".", 2)
        )
        if not block:
            part = {"conv1": "convolution", "bn1": "normalization"}[module]
            named[f"embedder.embedder.{part}.{rest}"] = tensor
            continue
        layer, number, *shortcut = block[0].split(".")
        part = f"shortcut.{module}"
        if not shortcut:
            kind = "convolution" if module.startswith("conv") else "normalization"
            part = f"layer.{int(module[-1]) - 1}.{kind}"
        named[f"encoder.stages.{int(layer[-1]) - 1}.layers.{number}.{part}.{rest}"] = tensor
    return named


CHILDREN = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
WITHOUT_POOLING = ("conv1", "bn1", "relu", "layer1", "layer2", "layer3", "layer4")
MLP = {"0.weight": torch.ones(2, 2), "1.running_mean": torch.ones(2)}

Layout = Callable[[Tensors, Tensors], Any]
"""Makes what a framework saves, of the encoder's tensors and of its moving average's."""

LAYOUTS: dict[str, tuple[Layout, str, set[str]]] = {
    "MoCo v3": (
        lambda q, k: {
            "arch": "resnet50",
            "state_dict": {
                **under("module.momentum_encoder.", k),
                **under("module.base_encoder.", q),
                **under("module.predictor.", MLP),
            },
        },
        "moco",
        {"module.predictor.0.weight"},
    ),
    "mmselfsup, before 1.0": (
        lambda q, k: {
            "meta": {"epoch": 3},
            "state_dict": {
                "queue": torch.ones(2, 4),
                **under("encoder_q.0.", q),
                **under("encoder_q.1.mlp.", MLP),
                **under("encoder_k.0.", k),
                **under("backbone.", {name: t.clone() for name, t in q.items()}),
            },
        },
        "moco",
        {"queue", "encoder_q.1.mlp.0.weight"},
    ),
    "mmselfsup, since 1.0": (
        lambda q, k: {
            "state_dict": {**under("backbone.", q), **under("encoder_k.module.0.", k)},
        },
        "moco",
        set(),
    ),
    "lightly": (
        lambda q, k: {
            "state_dict": {
                **under("backbone_momentum.", numbered(k, CHILDREN)),
                **under("backbone.", numbered(q, CHILDREN)),
                **under("projection_head.layers.", MLP),
            },
            "optimizer_states": [],
        },
        "unknown",
        {"projection_head.layers.0.weight"},
    ),
    "SimCLR for small images": (
        lambda q, _: {**under("f.", numbered(q, WITHOUT_POOLING)), **under("g.", MLP)},
        "unknown",
        {"g.0.weight"},
    ),
    "a sequence of an encoder and a head": (
        lambda q, _: {**under("0.", q), **under("2.", MLP)},
        "unknown",
        {"2.0.weight"},
    ),
    "solo-learn": (
        lambda q, k: {
            "state_dict": {
                **under("momentum_backbone.", k),
                **under("backbone.", q),
                **under("projector.", MLP),
                **under("momentum_projector.", MLP),
                "classifier.weight": torch.ones(10, 128),
                "classifier.bias": torch.ones(10),
            }
        },
        "unknown",
        {"projector.0.weight", "classifier.weight"},
    ),
    "VISSL": (
        lambda q, _: {
            "classy_state_dict": {
                "base_model": {
                    "model": {
                        "trunk": under("_feature_blocks.", q),
                        "heads": under("0.clf.", MLP),
                    }
                }
            }
        },
        "unknown",
        {"classy_state_dict.base_model.model.heads.0.clf.0.weight"},
    ),
    "SwAV": (
        lambda q, _: {
            **under("module.", q),
            **under("module.projection_head.", MLP),
            "module.prototypes.weight": torch.ones(3, 2),
        },
        "unknown",
        {"module.prototypes.weight", "module.projection_head.1.running_mean"},
    ),
    "DINO's teacher alone": (
        lambda q, _: {
            "teacher": {**under("backbone.", q), "head.last_layer.weight_v": torch.ones(2)}
        },
        "unknown",
        {"head.last_layer.weight_v"},
    ),
    "Barlow Twins": (
        lambda q, _: {
            "epoch": 3,
            "model": {**under("module.backbone.", q), **under("module.projector.", MLP)},
        },
        "unknown",
        {"module.projector.0.weight"},
    ),
    "PIRL": (
        lambda q, _: {"model": {**under("module.encoder.", q), **under("module.head_jig.", MLP)}},
        "unknown",
        {"module.head_jig.0.weight"},
    ),
    "BYOL": (
        lambda q, k: {**under("target_net.module.0.", k), **under("online_net.0.", q)},
        "unknown",
        set(),
    ),
    "compiled within DDP": (
        lambda q, _: {"model": under("module._orig_mod.", q)},
        "unknown",
        set(),
    ),
    "blocks compiled and sharded": (
        lambda q, _: {
            name.replace("layer2.0.", "_fsdp_wrapped_module.layer2.0._orig_mod."): tensor
            for name, tensor in q.items()
        },
        "unknown",
        set(),
    ),
    "Hugging Face": (
        lambda q, _: {
            **under("resnet.", hugging_face(q)),
            "classifier.1.weight": torch.ones(10, 128),
            "classifier.1.bias": torch.ones(10),
        },
        "supervised",
        {"classifier.1.weight", "classifier.1.bias"},
    ),
    "a detector of detectron2": (
        lambda q, _: {
            "model": {
                **under("backbone.bottom_up.", detectron2_tensors(q)),
                **under("roi_heads.", MLP),
            },
            "iteration": 3,
        },
        "unknown",
        {"roi_heads.0.weight"},
    ),
}


def assert_same_features(source: Backbone, folder: Path) -> None:
    images = torch.randn(2, 3, 48, 40)
    expected, found = features(source, images), features(load_backbone(folder), images)
    for stage, tensor in expected.items():
        torch.testing.assert_close(found[stage], tensor, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_encoder_is_found_under_the_names_of_every_framework(tmp_path: Path, name: str) -> None:
    make, origin, beside = LAYOUTS[name]
    encoder, average = trained_encoder(seed=0), trained_encoder(seed=1)
    torch.save(make(encoder.state_dict(), average.state_dict()), tmp_path / "checkpoint.ckpt")

    folder = convert(tmp_path / "checkpoint.ckpt", tmp_path / "backbone")

    assert_same_features(encoder, folder)
    facts = verify(folder).facts
    assert facts["origin"] == origin
    assert isinstance(facts["ignored_tensors"], list)
    assert beside <= set(map(str, facts["ignored_tensors"]))


@pytest.mark.parametrize(
    "make",
    [
        lambda a, b: {"student": under("module.backbone.", a), "teacher": under("backbone.", b)},
        lambda a, b: {"state_dict": a, "state_dict_ema": b},
        lambda a, b: {**under("student.", a), **under("teacher.", b)},
        lambda a, b: {
            **under("rgb.", detectron2_tensors(a)),
            **under("depth.", numbered(b, CHILDREN)),
        },
    ],
)
def test_several_encoders_are_named_by_what_takes_each(
    tmp_path: Path, make: Callable[[Tensors, Tensors], Any]
) -> None:
    encoders = trained_encoder(seed=0), trained_encoder(seed=1)
    torch.save(make(*(encoder.state_dict() for encoder in encoders)), tmp_path / "both.pth")

    with pytest.raises(DataError, match="holds 2 encoders that fit a resnet_digits") as refused:
        convert(tmp_path / "both.pth", tmp_path / "backbone")

    prefixes = [line.split("=")[1] for line in str(refused.value).splitlines() if "prefix=" in line]
    assert len(prefixes) == 2
    for number, (encoder, prefix) in enumerate(zip(encoders, prefixes, strict=True)):
        folder = convert(tmp_path / "both.pth", tmp_path / f"taken_{number}", prefix=prefix)
        assert_same_features(encoder, folder)


def test_the_other_encoder_of_a_momentum_pair_is_told_and_can_be_taken(tmp_path: Path) -> None:
    encoder, average = trained_encoder(seed=0), trained_encoder(seed=1)
    state = {
        **under("encoder_q.", encoder.state_dict()),
        **under("encoder_k.", average.state_dict()),
    }
    torch.save(state, tmp_path / "pair.pth")
    facts = verify(convert(tmp_path / "pair.pth", tmp_path / "q")).facts
    assert facts["other_encoders"] == ["encoder_k."]
    folder = convert(tmp_path / "pair.pth", tmp_path / "k", prefix="encoder_k.")
    assert_same_features(average, folder)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_detectron2s_pickle_of_arrays_is_read(tmp_path: Path, protocol: int) -> None:
    encoder = trained_encoder()
    arrays = {name: t.numpy() for name, t in detectron2_tensors(encoder.state_dict()).items()}
    arrays["stem.fc.weight"] = torch.ones(8, 128).numpy()
    content = {"model": arrays, "__author__": "MOCO", "matching_heuristics": True}
    (tmp_path / "moco.pkl").write_bytes(pickle.dumps(content, protocol=protocol))

    folder = convert(tmp_path / "moco.pkl", tmp_path / "backbone")

    assert_same_features(encoder, folder)
    assert verify(folder).facts["ignored_tensors"] == ["stem.fc.weight"]
    assert "RGB" in str(verify(folder).facts["assumed"])


def test_an_array_in_the_order_of_fortran_is_read_as_what_it_is(tmp_path: Path) -> None:
    encoder = trained_encoder()
    arrays = {name: t.numpy().copy(order="F") for name, t in encoder.state_dict().items()}
    (tmp_path / "fortran.pkl").write_bytes(pickle.dumps({"model": arrays}))
    assert_same_features(encoder, convert(tmp_path / "fortran.pkl", tmp_path / "backbone"))


def hugging_face_folder(folder: Path, encoder: Backbone, **config: object) -> Path:
    folder.mkdir()
    save_file(under("resnet.", hugging_face(encoder.state_dict())), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "resnet", **config}))
    return folder


def test_a_folder_of_hugging_face_stands_for_its_weights(tmp_path: Path) -> None:
    encoder = trained_encoder()
    folder = hugging_face_folder(tmp_path / "resnet-50", encoder, hidden_act="relu")
    (folder / "README.md").write_text("a card")
    converted = convert(folder, tmp_path / "backbone")
    assert_same_features(encoder, converted)
    lineage = verify(converted).inputs["checkpoint"]
    assert (lineage.origin, lineage.name) == ("file", "resnet-50")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"downsample_in_bottleneck": True}, "downsample_in_bottleneck is True"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"pretrained_cfg": {"mean": [0.5, 0.5, 0.5]}}, r"image_mean is \[0.5, 0.5, 0.5\]"),
    ],
)
def test_what_tensors_do_not_show_of_a_network_is_read_beside_them(
    tmp_path: Path, config: dict[str, object], words: str
) -> None:
    folder = hugging_face_folder(tmp_path / "hf", trained_encoder(), **config)
    with pytest.raises(DataError, match=words):
        convert(folder, tmp_path / "backbone")


def test_a_folder_without_weights_names_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "epoch_3.pth").write_bytes(b"")
    with pytest.raises(DataError, match=r"give the checkpoint file itself, one of epoch_3\.pth"):
        convert(tmp_path / "odd", tmp_path / "backbone")


@pytest.mark.parametrize(
    ("classes", "trained", "origin"),
    [(10, 38, "supervised"), (128, 38, "unknown"), (10, 2, "unknown")],
)
def test_a_classifier_is_supervised_unless_its_encoder_was_frozen(
    tmp_path: Path, classes: int, trained: int, origin: str
) -> None:
    """The released linear evaluation saves a frozen encoder and the state of two parameters."""
    encoder = trained_encoder()
    state = {
        **under("module.", encoder.state_dict()),
        "module.fc.weight": torch.ones(classes, 128),
        "module.fc.bias": torch.ones(classes),
    }
    optimizer = {"state": {}, "param_groups": [{"lr": 30.0, "params": list(range(trained))}]}
    torch.save({"state_dict": state, "optimizer": optimizer}, tmp_path / "x.pth.tar")
    folder = convert(tmp_path / "x.pth.tar", tmp_path / "backbone")
    assert verify(folder).facts["origin"] == origin
