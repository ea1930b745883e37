"""Loads the encoder that was found in a checkpoint, or makes the random one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from components.convert import ConvertConfig, Source
from components.convert.pickles import PickledCheckpoint, TensorRecord
from components.convert.sources import COUNTER, SHOWN_NAMES, locate
from components.core.errors import ConfigError, DataError
from components.vision.architectures import Architecture
from components.vision.backbones import Backbone, build_backbone, load_weights, random_backbone


class LoadedEncoder(NamedTuple):
    """What was found in a checkpoint.

    Attributes:
        backbone: The source's own encoder, in evaluation mode.
        source: What the checkpoint turned out to be.
        origin: What it was trained by, as far as the checkpoint tells.
        ignored: Tensors that lie beside the encoder.
        other_encoders: Prefixes of other encoders in the file.
        assumed: What had to be taken for granted of it.
    """

    backbone: Backbone
    source: Source
    origin: str
    ignored: Sequence[str] = ()
    other_encoders: Sequence[str] = ()
    assumed: str | None = None


def find_encoder(checkpoint: Path | None, config: ConvertConfig) -> LoadedEncoder:
    """Load the encoder of a checkpoint, or make the random one.

    Args:
        checkpoint: A file, or the folder of an artifact; None for source `random` only.
        config: Says what it must be, unless `auto`.

    Raises:
        ConfigError: if the source needs a checkpoint and there is none, or the other way round.
        DataError: as `locate` does, and if a weight is damaged or no number.
    """
    if (checkpoint is None) != (config.source == "random"):
        raise ConfigError(
            f"source {config.source!r} needs --input.checkpoint; without one, say source 'random'"
            if checkpoint is None
            else f"source 'random' reads no checkpoint; leave {checkpoint} out, or name its source"
        )
    if checkpoint is None:
        drawn = "resnet50" if config.architecture == "auto" else config.architecture
        backbone = random_backbone(drawn, config.seed)
        return LoadedEncoder(backbone.eval(), "random", "random")
    located = locate(checkpoint, config)
    tensors = load_tensors(located.checkpoint, located.records)
    backbone = _encoder(located.architecture, tensors, checkpoint)
    return LoadedEncoder(
        backbone,
        located.source,
        located.origin,
        located.ignored,
        located.other_encoders,
        located.assumed,
    )


def load_tensors(
    checkpoint: PickledCheckpoint, records: Mapping[str, TensorRecord]
) -> dict[str, Tensor]:
    """Read tensors, wherever they were saved from, to the CPU.

    Raises:
        DataError: naming a tensor that lies outside its storage or is damaged.
    """
    return {name: _load(checkpoint, name, record) for name, record in records.items()}


def _load(checkpoint: PickledCheckpoint, name: str, record: TensorRecord) -> Tensor:
    data = checkpoint.data(name, record)
    dtype: torch.dtype = getattr(torch, record.storage.dtype)
    if not data:
        return torch.empty(record.shape, dtype=dtype)
    elements = torch.frombuffer(
        data if isinstance(data, bytearray) else bytearray(data), dtype=dtype
    )
    view = elements.as_strided(record.shape, tuple(record.stride), record.offset)
    return view.clone(memory_format=torch.contiguous_format)


def _encoder(architecture: Architecture, tensors: Mapping[str, Tensor], where: Path) -> Backbone:
    """Load tensors into the source's own model, in single precision, all of them or none."""
    backbone = build_backbone(architecture)
    wanted = backbone.state_dict()
    counters = {name: tensor for name, tensor in wanted.items() if name.endswith(COUNTER)}
    unusable = [
        name
        for name, tensor in tensors.items()
        if name not in counters
        and not (tensor.is_floating_point() and bool(torch.isfinite(tensor).all()))
    ]
    if unusable:
        raise DataError(
            f"{where}: {len(unusable)} tensors are not finite numbers of the right type: "
            f"{', '.join(unusable[:SHOWN_NAMES])}; give a checkpoint from before training diverged"
        )
    load_weights(backbone, {**counters, **tensors}, str(where))
    return backbone.eval()
