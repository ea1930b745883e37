"""Finds the encoder in a checkpoint, whatever wrote it, by its header alone: names and shapes.

Nothing here needs torch: a plan asks the same questions as the stage, before anything is spent.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from components.convert import ConvertConfig, Source
from components.convert.checkpoints import Checkpoint, parameters_trained
from components.convert.layouts import Candidate, Shape, candidates, origin_of, unwrapped
from components.convert.pickles import TensorRecord
from components.core.errors import ConfigError, DataError
from components.core.manifest import (
    HUGGING_FACE_WEIGHTS,
    MANIFEST,
    Manifest,
    file_sha256,
    read_manifest,
)
from components.vision.architectures import (
    CARD,
    ENCODER_WEIGHTS,
    MEAN,
    MODEL_CARD,
    RESNETS,
    STD,
    Architecture,
    misfit,
    tensor_shapes,
)

SHOWN_NAMES = 6
MINIATURE: Architecture = "resnet_digits"
_SMOOTHED = re.compile(r"resne\w*?(?:aa|blur)")
ASSUMED = {
    "detectron2": "images in RGB, and strides in the 3x3 convolutions: detectron2's weights do not "
    "say, and many of its models have BGR, and strides in the 1x1"
}
"""What is taken for granted of a dialect's checkpoints."""
COUNTER = "num_batches_tracked"  # torch before 0.4.1 had none, and nothing reads them


class Located(NamedTuple):
    """Where in a checkpoint the encoder is, and what it is.

    Attributes:
        checkpoint: The file.
        architecture: What the encoder is.
        records: Its tensors by torchvision's names.
        source: What the checkpoint turned out to be.
        origin: What it was trained by, as far as the checkpoint tells.
        ignored: Tensors that lie beside the encoder: heads, projectors, prototypes, queues.
        other_encoders: Prefixes of other encoders in the file.
        assumed: What had to be taken for granted, because such files do not say it.
    """

    checkpoint: Checkpoint
    architecture: Architecture
    records: Mapping[str, TensorRecord]
    source: Source
    origin: str
    ignored: Sequence[str] = ()
    other_encoders: Sequence[str] = ()
    assumed: str | None = None


def locate(path: Path, config: ConvertConfig) -> Located:
    """Find the encoder of a checkpoint without reading a weight.

    Args:
        path: A file, or the folder of an artifact.
        config: Says what it must be, unless `auto`.

    Raises:
        ConfigError: if the config says of an artifact what is for files.
        DataError: if the checkpoint is another than the config says, is cut, or does not
            hold every tensor of the architecture; the tensors are named.
    """
    located = (_in_artifact if path.is_dir() else _in_file)(path, config)
    if config.source not in ("auto", located.source):
        raise DataError(
            f"{path} is of source {located.source!r}, and the config insists on "
            f"{config.source!r}; set source to {located.source!r} or 'auto', or give another file"
        )
    return located


class _ModelCard(BaseModel):
    """What is needed of `model.json`; each stage writes more into its own."""

    architecture: Architecture
    mechanism: str | None = None  # of pretrain's only


def _in_artifact(folder: Path, config: ConvertConfig) -> Located:
    if (folder / CARD).exists():
        raise DataError(
            f"{folder} is a converted backbone already; use it as it is, or give what it was "
            "converted from"
        )
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
            "Give an artifact of pretrain, classification or segmentation, or a checkpoint file"
        ) from None
    if card.architecture not in _allowed(config):
        wanted = config.architecture
        raise DataError(
            f"{folder} is a {card.architecture}, "
            + ("the miniature's own" if wanted == "auto" else f"the config says {wanted}")
            + f"{_instead(config, card.architecture == MINIATURE)}; "
            f"set architecture to {card.architecture}"
        )
    checkpoint = Checkpoint(folder / ENCODER_WEIGHTS)
    records = checkpoint.containers.get("", {})
    fault = misfit(tensor_shapes(card.architecture), _shapes(records), card.architecture)
    if fault:
        raise DataError(f"{folder} {fault}\nRun the stage that made it again")
    source: Source = "classification"
    manifest = read_manifest(folder) if (folder / MANIFEST).exists() else None
    if card.mechanism is not None:
        return Located(checkpoint, card.architecture, records, "pretrain", card.mechanism)
    if manifest and manifest.stage == "segmentation":
        source = "segmentation"
    return Located(checkpoint, card.architecture, records, source, _trained_origin(manifest))


def _trained_origin(manifest: Manifest | None) -> str:
    """Say what made a classifier's or a segmenter's encoder: a frozen one is what it was before."""
    backbone = manifest.inputs.get("backbone") if manifest else None
    before = str(backbone.facts.get("origin", "unknown")) if backbone else "random"
    if manifest and manifest.stage == "classification.linear":
        return before if backbone else "unknown"
    return "supervised" if before == "random" else f"{before}_finetuned"


def _in_file(path: Path, config: ConvertConfig) -> Located:
    if config.sha256 is not None and not (digest := file_sha256(path)).startswith(config.sha256):
        raise DataError(
            f"{path} has SHA-256 {digest}, expected {config.sha256}...; "
            "fetch it again, or correct sha256"
        )
    _check_hugging_face(path)
    checkpoint = Checkpoint(path)
    if not checkpoint.containers:
        content = checkpoint.content
        held = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise DataError(
            f"{path} holds no tensors, but {held or 'nothing'}; give a checkpoint with the "
            "state_dict() of a ResNet in it"
        )
    _check_name(checkpoint)
    encoder, passed_over = _choose(checkpoint, config)
    container = checkpoint.containers[encoder.container]
    records = {name: container[original] for name, original in encoder.tensors.items()}
    shapes = _shapes(container)
    origin = origin_of(encoder, shapes, parameters_trained(checkpoint.content))
    return Located(
        checkpoint,
        _nearest(_shapes_of(checkpoint, encoder), config),
        records,
        "moco" if origin == "moco" else "resnet",
        origin,
        _beside(checkpoint, encoder, passed_over),
        [candidate.path for candidate in passed_over],
        ASSUMED.get(encoder.dialect),
    )


def _choose(checkpoint: Checkpoint, config: ConvertConfig) -> tuple[Candidate, list[Candidate]]:
    """Choose the encoder that is meant; return it and the others that fit.

    Of an encoder and its moving average by momentum it is the encoder, which is what all
    such methods are measured by. Where that does not decide, the user is asked.
    """
    path = checkpoint.path
    known = candidates(checkpoint.containers)
    if config.prefix is not None:
        wanted = unwrapped(f"{config.prefix.rstrip('.')}.").rstrip(".")
        meant = [candidate for candidate in known if candidate.path.rstrip(".") == wanted]
        meant = meant or [
            candidate for candidate in known if candidate.prefix.rstrip(".") == wanted
        ]
        if not meant:
            raise _no_encoder(checkpoint, known, f"begins with {config.prefix!r}", config)
    else:
        meant = known
    if not meant:
        raise _no_encoder(checkpoint, known, f"fits {_wanted(config)}", config)
    faults = {id(candidate): _fault(checkpoint, candidate, config) for candidate in meant}
    fitting = sorted(
        (candidate for candidate in meant if not faults[id(candidate)]),
        key=lambda candidate: candidate.follows,
    )
    whole = _distinct(checkpoint, fitting)
    leading = [candidate for candidate in whole if not candidate.follows]
    partial = [
        candidate
        for candidate in meant
        if faults[id(candidate)]
        and not candidate.follows
        and _is_most(checkpoint, candidate, config)
    ]
    if not leading and partial and config.prefix is None:
        raise _incomplete(checkpoint, partial, known, whole, config)
    if not whole:
        raise _incomplete(checkpoint, meant, known, [], config)
    leading = leading or whole
    if len(leading) > 1:
        options = "\n".join(f"  prefix={_shown(candidate, known)}" for candidate in leading)
        raise DataError(
            f"{path} holds {len(leading)} encoders that fit {_wanted(config)}; say which one, "
            f"by prefix:\n{options}"
        )
    return leading[0], [
        candidate
        for candidate in known
        if candidate != leading[0] and not _fault(checkpoint, candidate, config)
    ]


def _fault(checkpoint: Checkpoint, encoder: Candidate, config: ConvertConfig) -> str | None:
    """Say what of the architecture is missing, misshapen or too much."""
    given = _shapes_of(checkpoint, encoder)
    architecture = _nearest(given, config)
    wanted = tensor_shapes(architecture)
    optional = {name for name in wanted if name.endswith(COUNTER) and name not in given}
    kept = {name: shape for name, shape in wanted.items() if name not in optional}
    fault = misfit(kept, given, architecture)
    return fault and fault.replace(f"of {len(kept)} tensors", f"of {len(wanted)} tensors")


def _incomplete(
    checkpoint: Checkpoint,
    meant: Sequence[Candidate],
    known: Sequence[Candidate],
    whole: Sequence[Candidate],
    config: ConvertConfig,
) -> DataError:
    """Say what the most complete encoder of some is, and what of it does not fit."""
    best = max(meant, key=lambda encoder: (_hits(checkpoint, encoder, config), not encoder.follows))
    architecture = _nearest(_shapes_of(checkpoint, best), config)
    described = _described(_shapes_of(checkpoint, best))
    another = described != _described(tensor_shapes(architecture))
    instead = "".join(f", or take prefix={_shown(candidate, known)}" for candidate in whole)
    return DataError(
        f"{checkpoint.path}: {described} under {_shown(best, known)!r} "
        f"{_fault(checkpoint, best, config)}\n"
        f"Nothing was loaded; give a complete checkpoint of this architecture"
        f"{_instead(config, MINIATURE in described) if another else ''}{instead}"
    )


def _hits(checkpoint: Checkpoint, encoder: Candidate, config: ConvertConfig) -> int:
    wanted = tensor_shapes(_nearest(_shapes_of(checkpoint, encoder), config))
    return len(encoder.tensors.keys() & wanted.keys())


def _is_most(checkpoint: Checkpoint, encoder: Candidate, config: ConvertConfig) -> bool:
    wanted = tensor_shapes(_nearest(_shapes_of(checkpoint, encoder), config))
    return 2 * _hits(checkpoint, encoder, config) > len(wanted)


def _allowed(config: ConvertConfig) -> tuple[Architecture, ...]:
    """Return what a checkpoint may be."""
    if config.architecture != "auto":
        return (config.architecture,)
    return tuple(name for name in RESNETS if name != MINIATURE)


def _wanted(config: ConvertConfig) -> str:
    """Say what a checkpoint may be."""
    return "a known ResNet" if config.architecture == "auto" else f"a {config.architecture}"


def _nearest(given: Mapping[str, Shape], config: ConvertConfig) -> Architecture:
    """Return which of the permitted architectures an encoder is, or is most like."""
    return max(_allowed(config), key=lambda name: _likeness(given, name))


def _distinct(checkpoint: Checkpoint, encoders: list[Candidate]) -> list[Candidate]:
    """Leave out what is there twice: frameworks keep one module under two names."""
    kept: list[Candidate] = []
    for encoder in encoders:
        if not any(_same(checkpoint, encoder, earlier) for earlier in kept):
            kept.append(encoder)
    return kept


def _same(checkpoint: Checkpoint, left: Candidate, right: Candidate) -> bool:
    def data(encoder: Candidate, name: str) -> tuple[Any, ...]:
        record = checkpoint.containers[encoder.container][encoder.tensors[name]]
        return (*record[1:], bytes(checkpoint.data(name, record)))

    def same(name: str) -> bool:
        first, second = (
            checkpoint.containers[encoder.container][encoder.tensors[name]]
            for encoder in (left, right)
        )
        return first == second or data(left, name) == data(right, name)

    return left.tensors.keys() == right.tensors.keys() and all(map(same, left.tensors))


def _beside(
    checkpoint: Checkpoint, encoder: Candidate, passed_over: Sequence[Candidate]
) -> list[str]:
    """Name the tensors that are in no encoder, as they are called beside the chosen one."""
    taken = {
        (candidate.container, name)
        for candidate in (encoder, *passed_over)
        for name in candidate.tensors.values()
    }
    return [
        name if container == encoder.container or not container else f"{container}.{name}"
        for container, names in checkpoint.containers.items()
        for name in names
        if (container, name) not in taken
    ]


def _shapes(records: Mapping[str, TensorRecord]) -> dict[str, Shape]:
    return {name: record.shape for name, record in records.items()}


def _shapes_of(checkpoint: Checkpoint, encoder: Candidate) -> dict[str, Shape]:
    container = checkpoint.containers[encoder.container]
    return {name: container[original].shape for name, original in encoder.tensors.items()}


def _shown(encoder: Candidate, known: Sequence[Candidate]) -> str:
    """Return the shortest prefix by which an encoder can be asked for."""
    alike = [candidate for candidate in known if candidate.prefix == encoder.prefix]
    return encoder.prefix if len(alike) == 1 else encoder.path


def _described(shapes: Mapping[str, Shape]) -> str:
    """Say what a ResNet is, by its blocks and widths."""
    blocks = tuple(
        len({name.split(".")[1] for name in shapes if name.startswith(f"layer{layer}.")})
        for layer in range(1, 5)
    )
    bottleneck = any(name.startswith("layer1.0.conv3") for name in shapes)
    alike = [
        name
        for name, resnet in RESNETS.items()
        if (resnet.blocks, resnet.bottleneck) == (blocks, bottleneck)
    ]
    absent = [f"res{stage} (layer{stage - 1})" for stage, n in enumerate(blocks, 2) if not n]
    if absent:
        return f"a ResNet without {' and '.join(absent)}, from which every head takes features,"
    if not alike:
        return f"a ResNet of {blocks} {'bottleneck' if bottleneck else 'basic'} blocks"
    nearest = max(alike, key=lambda name: _likeness(shapes, name))
    if nearest == MINIATURE:
        return f"the miniature's encoder, {nearest},"
    return f"a {RESNETS[nearest].name}"


def _likeness(given: Mapping[str, Shape], architecture: Architecture) -> float:
    """Return how many of all tensors, given or the architecture's, both have in one shape."""
    wanted = tensor_shapes(architecture)
    same = sum(given.get(name) == shape for name, shape in wanted.items())
    return same / (len(wanted) + len(given) - same)


def _instead(config: ConvertConfig, miniature: bool) -> str:
    """Say what would fit; people meet the miniature's own encoder by an option of `moco`.

    Args:
        config: What must be.
        miniature: Whether what is given is the miniature's.
    """
    if config.architecture == MINIATURE:
        return (
            f" ({MINIATURE} is the miniature's own, which `--scale digits` takes and pre-trains; "
            "larger ones are for `--scale full`)"
        )
    if config.architecture != "auto":
        return ""
    if miniature:
        return " (`--scale digits` takes the miniature's own)"
    return f" (known are {', '.join(_allowed(config))})"


def _no_encoder(
    checkpoint: Checkpoint, known: Sequence[Candidate], what: str, config: ConvertConfig
) -> DataError:
    """Name what the file has instead, and the prefixes that would read as an encoder."""
    names = [
        f"{container}.{name}" if container else name
        for container, records in checkpoint.containers.items()
        for name in records
    ]
    shown = ", ".join(names[:SHOWN_NAMES]) + (", ..." if len(names) > SHOWN_NAMES else "")
    whole = [candidate for candidate in known if not _fault(checkpoint, candidate, config)]
    way_out = (
        f"set prefix to {' or '.join(repr(_shown(candidate, known)) for candidate in whole)}"
        if whole
        else f"give a checkpoint of {_wanted(config)} under the names of torchvision, "
        "detectron2, Hugging Face or an nn.Sequential, whatever stands before them"
    )
    return DataError(
        f"{checkpoint.path}: none of its {len(names)} tensors {what}. Found: {shown}\n{way_out}"
    )


def _check_name(checkpoint: Checkpoint) -> None:
    """Refuse a ResNet whose tensors are another's, and which computes otherwise.

    timm writes the name of a model into its checkpoints, and into `config.json`.

    Raises:
        DataError: naming it.
    """
    content = checkpoint.content if isinstance(checkpoint.content, Mapping) else {}
    names = (content.get("arch"), _json_beside(checkpoint.path, "config.json").get("architecture"))
    for name in names:
        if isinstance(name, str) and _SMOOTHED.search(name):
            raise DataError(
                f"{checkpoint.path} is a {name}, which pools before it strides: its features would "
                "not be its own; give a ResNet without anti-aliasing"
            )


def _check_hugging_face(path: Path) -> None:
    """Refuse weights whose config, beside them, says what tensors do not show.

    Raises:
        DataError: for a network that computes otherwise, or wants other images.
    """
    known = {
        "downsample_in_bottleneck": False,
        "downsample_in_first_stage": False,
        "hidden_act": "relu",
        "output_stride": 32,
    }
    config = _json_beside(path, "config.json")
    images = {
        **_json_beside(path, "preprocessor_config.json"),
        **{f"image_{name}": value for name, value in _pretrained(config).items()},
    }
    faults = [
        f"{name} is {config[name]!r}, and {value!r} is needed"
        for name, value in known.items()
        if config.get(name, value) != value
    ]
    for name, value in (("image_mean", MEAN), ("image_std", STD)):
        given = images.get(name)
        if isinstance(given, list) and not _close(given, value):
            faults.append(f"{name} is {given}, and ImageNet's is needed")
    if faults:
        raise DataError(
            f"{path}: by the files beside it {'; '.join(faults)}. Its features would not be what "
            "it was trained for; give a checkpoint of torchvision's ResNet for ImageNet's pixels"
        )


def _close(given: list[Any], pixels: tuple[float, ...]) -> bool:
    return len(given) == len(pixels) and all(
        isinstance(value, int | float) and abs(255 * value - pixel) < 1
        for value, pixel in zip(given, pixels, strict=True)
    )


def _pretrained(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return timm's description of the images in its `config.json`."""
    described = config.get("pretrained_cfg")
    return described if isinstance(described, dict) else {}


def _json_beside(path: Path, name: str) -> Mapping[str, Any]:
    beside = path.with_name(name)
    if path.name not in HUGGING_FACE_WEIGHTS or not beside.is_file():
        return {}
    try:
        content = json.loads(beside.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{beside} cannot be read: {error}; fetch it again") from None
    return content if isinstance(content, dict) else {}
