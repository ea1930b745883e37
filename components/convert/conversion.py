"""Writes a backbone under the names of both libraries, and proves both from the files."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from components.convert import ConvertConfig
from components.convert.detectron2_layout import detectron2_features, detectron2_tensors
from components.convert.encoders import find_encoder
from components.core.errors import DataError
from components.core.log import get_logger
from components.core.stage import Job
from components.vision.architectures import (
    CARD,
    DETECTRON2_WEIGHTS,
    TORCHVISION_WEIGHTS,
    BackboneCard,
)
from components.vision.backbones import Backbone, feature_maps, load_backbone, read_tensors

PROBES = (2, 3, 96, 64)  # random images; height and width differ, so no transposition hides

log = get_logger(__name__)


def run(job: Job[ConvertConfig]) -> None:
    """Convert the checkpoint, or the random initialisation, and prove the result.

    Raises:
        ConfigError, DataError: as `find_encoder` does, and if any feature of the result
            differs by more than the tolerance.
    """
    config, folder = job.config, job.output("backbone")
    checkpoint = job.input("checkpoint") if job.has_input("checkpoint") else None
    encoder = find_encoder(checkpoint, config)
    origin = config.origin or encoder.origin
    log.info(
        "encoder found",
        source=encoder.source,
        architecture=encoder.backbone.architecture,
        passed_over=list(encoder.other_encoders),
    )
    if encoder.assumed:
        log.warning("taken for granted", what=encoder.assumed)
        job.facts["assumed"] = encoder.assumed
    write_backbone(encoder.backbone, origin, folder)
    difference = max_feature_difference(encoder.backbone, folder)
    if not difference <= config.tolerance:  # not a number is no proof either
        raise DataError(
            f"features of the converted backbone differ from the source's by {difference:.3g}, "
            f"the tolerance is {config.tolerance:.3g}; "
            "use the source in single precision and sound weights, or raise tolerance"
        )
    job.facts.update(
        source=encoder.source,
        origin=origin,
        architecture=encoder.backbone.architecture,
        parameters=encoder.backbone.resnet.parameters,
        max_feature_difference=difference,
        ignored_tensors=list(encoder.ignored),
        other_encoders=list(encoder.other_encoders),
    )
    log.info("converted", origin=origin, max_feature_difference=difference)


def write_backbone(backbone: Backbone, origin: str, folder: Path) -> None:
    """Write both weights files and the card; the same weights give the same bytes."""
    tensors = {name: tensor.contiguous() for name, tensor in backbone.state_dict().items()}
    save_file(tensors, folder / TORCHVISION_WEIGHTS)
    save_file(detectron2_tensors(tensors), folder / DETECTRON2_WEIGHTS)
    card = BackboneCard(architecture=backbone.architecture, origin=origin)
    (folder / CARD).write_text(card.model_dump_json(indent=1) + "\n", "utf-8")


@torch.inference_mode()
def max_feature_difference(source: Backbone, folder: Path) -> float:
    """Compare res2 to res5 of a source, in evaluation mode, with those of both written files.

    Returns:
        The largest absolute difference on random images; not a number if the source's features
        are not numbers.
    """
    images = torch.randn(PROBES, generator=torch.Generator().manual_seed(0))
    expected = feature_maps(source, images)
    detectron2 = read_tensors(folder / DETECTRON2_WEIGHTS)
    results = (
        feature_maps(load_backbone(folder).eval(), images),
        detectron2_features(detectron2, images, source.architecture),
    )
    return float(torch.stack([_difference(expected, result) for result in results]).max())


def _difference(expected: dict[str, Tensor], result: dict[str, Tensor]) -> Tensor:
    return torch.stack([(expected[stage] - result[stage]).abs().max() for stage in expected]).max()
