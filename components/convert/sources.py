"""Finds the encoder in a checkpoint, whatever wrote it, under the names of torchvision."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel
from torch import Tensor

from components.convert import ConvertConfig, Source
from components.convert.pickles import PickledCheckpoint, TensorRecord
from components.core.errors import ConfigError, DataError
from components.core.manifest import file_sha256
from components.vision.architectures import CARD, ENCODER_WEIGHTS, MODEL_CARD, Architecture
from components.vision.backbones import (
    Backbone,
    build_backbone,
    load_weights,
    random_backbone,
    read_tensors,
)

PREFIXES: Mapping[str, Source] = {
    "module.encoder_q.": "moco",  # the authors' model, inside DistributedDataParallel
    "encoder_q.": "moco",
    "module.": "resnet",
    "": "resnet",
}
HEAD = "fc."  # of v1 and supervised models fc.weight, of v2 fc.0.weight and fc.2.weight
CONTAINERS = ("state_dict", "model")  # where training scripts put the state dict
SHOWN_NAMES = 6


class Encoder(NamedTuple):
    """What was found in a checkpoint.

    Attributes:
        backbone: The source's own encoder, in evaluation mode.
        source: What the checkpoint turned out to be.
        origin: What initialised it, as far as the checkpoint tells.
        ignored: Tensors that belong to the encoder's head.
    """

    backbone: Backbone
    source: Source
    origin: str
    ignored: list[str]


def find_encoder(checkpoint: Path | None, config: ConvertConfig) -> Encoder:
    """Load the encoder of a checkpoint, or make the random one.

    Args:
        checkpoint: A file, or the folder of an artifact; None for source `random` only.
        config: Says what it must be, unless `auto`.

    Raises:
        ConfigError: if the source needs a checkpoint and there is none, or the other way round.
        DataError: if the checkpoint is another than the config says, is damaged, or does not
            hold every tensor of the architecture; the tensors are named.
    """
    if (checkpoint is None) != (config.source == "random"):
        raise ConfigError(
            f"source {config.source!r} needs --input.checkpoint; without one, say source 'random'"
            if checkpoint is None
            else f"source 'random' reads no checkpoint; leave {checkpoint} out, or name its source"
        )
    if checkpoint is None:
        backbone = random_backbone(config.architecture, config.seed)
        return Encoder(backbone.eval(), "random", "random", [])
    encoder = (_from_artifact if checkpoint.is_dir() else _from_file)(checkpoint, config)
    if config.source not in ("auto", encoder.source):
        raise DataError(
            f"{checkpoint} is of source {encoder.source!r}, and the config insists on "
            f"{config.source!r}; set source to {encoder.source!r} or 'auto', or give another file"
        )
    return encoder


class _ModelCard(BaseModel):
    """What is needed of `model.json`; each stage writes more into its own."""

    architecture: Architecture
    mechanism: str | None = None  # of pretrain's only


def _from_artifact(folder: Path, config: ConvertConfig) -> Encoder:
    if (folder / CARD).exists():
        raise DataError(f"{folder} is a converted backbone already; use it as it is")
    for name in ("prefix", "sha256"):
        if getattr(config, name) is not None:
            raise ConfigError(
                f"{name} is for a file from elsewhere; {folder} is an artifact, whose manifest "
                "has names and hashes: leave it out"
            )
    try:
        card = _ModelCard.model_validate_json((folder / MODEL_CARD).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder} has no readable {MODEL_CARD}: {error}\n"
            "Give an artifact of pretrain or classification, or a checkpoint file"
        ) from None
    if card.architecture != config.architecture:
        raise DataError(
            f"{folder} is a {card.architecture}, the config says {config.architecture}; "
            f"set architecture to {card.architecture}"
        )
    backbone = _encoder(config.architecture, read_tensors(folder / ENCODER_WEIGHTS), folder)
    if card.mechanism is None:
        return Encoder(backbone, "classification", "supervised", [])
    return Encoder(backbone, "pretrain", card.mechanism, [])


def _from_file(path: Path, config: ConvertConfig) -> Encoder:
    if config.sha256 is not None and not (found := file_sha256(path)).startswith(config.sha256):
        raise DataError(
            f"{path} has SHA-256 {found}, expected {config.sha256}...; "
            "fetch it again, or correct sha256"
        )
    names, load = _open(path)
    prefix = config.prefix if config.prefix is not None else _find_prefix(path, names, config)
    inside = [name for name in names if name.startswith(prefix)]
    if not inside:
        raise _no_encoder(path, names, f"begins with {prefix!r}")
    head = [name for name in inside if name.startswith(prefix + HEAD)]
    tensors = load([name for name in inside if name not in head])
    tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    backbone = _encoder(config.architecture, tensors, path)
    source = PREFIXES.get(prefix, "resnet")
    return Encoder(backbone, source, "moco" if source == "moco" else "supervised", head)


def _open(path: Path) -> tuple[list[str], Callable[[list[str]], dict[str, Tensor]]]:
    """Return the names of the tensors in a file, and what loads some of them."""
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:] == b"{":  # safetensors: the size of a JSON header, then the header
        tensors = read_tensors(path)
        return list(tensors), lambda names: {name: tensors[name] for name in names}
    checkpoint = PickledCheckpoint(path)
    records = _state_dict(path, checkpoint.content)
    return list(records), lambda names: checkpoint.load({name: records[name] for name in names})


def _state_dict(path: Path, content: Any) -> dict[str, TensorRecord]:
    """Find the state dict in a checkpoint: it is the content, or in a container of scripts."""
    candidates = [content]
    if isinstance(content, dict):
        candidates += [content[name] for name in CONTAINERS if name in content]
    for candidate in candidates:
        if isinstance(candidate, dict):
            records = {
                name: value
                for name, value in candidate.items()
                if isinstance(name, str) and isinstance(value, TensorRecord)
            }
            if records:
                return records
    held = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
    raise DataError(
        f"{path} holds no tensors, but {held or 'nothing'}; a state dict is looked for at the top "
        f"and under {' and '.join(CONTAINERS)}: give a checkpoint that has one"
    )


def _find_prefix(path: Path, names: list[str], config: ConvertConfig) -> str:
    """Choose the prefix under which most tensors of the architecture are found."""
    with torch.device("meta"):
        wanted = set(build_backbone(config.architecture).state_dict())
    hits = {
        prefix: sum(
            name.startswith(prefix) and name.removeprefix(prefix) in wanted for name in names
        )
        for prefix in PREFIXES
    }
    best = max(hits, key=hits.__getitem__)
    if not hits[best]:
        raise _no_encoder(path, names, f"fits a {config.architecture}")
    return best


def _no_encoder(path: Path, names: list[str], what: str) -> DataError:
    """Name what the file has instead, and the prefixes that would read as an encoder."""
    first = "conv1.weight"
    roots = [name.removesuffix(first) for name in names if name.endswith(first)]
    encoders = [root for root in roots if "layer" not in root]
    shown = ", ".join(names[:SHOWN_NAMES]) + (", ..." if len(names) > SHOWN_NAMES else "")
    way_out = (
        f"an encoder seems to begin with {' or '.join(map(repr, encoders[:SHOWN_NAMES]))}: set "
        "prefix to that"
        if encoders
        else "give a checkpoint of a ResNet with torchvision's names"
    )
    known = ", ".join(f"{prefix + first!r} ({source})" for prefix, source in PREFIXES.items())
    return DataError(
        f"{path}: none of its {len(names)} tensors {what}. Found: {shown}\n"
        f"Known names: {known}; {way_out}"
    )


def _encoder(architecture: Architecture, tensors: Mapping[str, Tensor], where: Path) -> Backbone:
    """Load tensors into the source's own model, in single precision, all of them or none."""
    backbone = build_backbone(architecture)
    wanted = backbone.state_dict()
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}
    if not counters & tensors.keys():  # torch before 0.4.1 had none, and its files are around
        tensors = {**tensors, **{name: wanted[name] for name in counters}}
    unusable = [
        name
        for name, tensor in tensors.items()
        if name in wanted
        and (
            tensor.is_floating_point() != wanted[name].is_floating_point()
            or not bool(torch.isfinite(tensor).all())
        )
    ]
    if unusable:
        raise DataError(
            f"{where}: {len(unusable)} tensors are not finite numbers of the right type: "
            f"{', '.join(unusable[:SHOWN_NAMES])}; give a checkpoint from before training diverged"
        )
    load_weights(backbone, tensors, str(where))
    return backbone.eval()
