"""Detectors of torchvision's parts: where detectron2 is not installed, and to check it.

Resizing, normalising and results are the project's own, never torchvision's transform. What
differs between the libraries and is cheap to close is closed, after detectron2's side: aligned
RoIAlign (not for DensePose, whose configs keep the older one), anchors that are not rounded
and lie on the exact strides, L1 box losses divided by the size of the sample, the first weights
of the box and mask predictors, mask targets cut by RoIAlign, masks pasted at subpixels.

What remains: the random numbers of both samplings; an image of the C4 and DC5 models is
padded to a multiple of 32, detectron2 pads theirs only to the largest of its batch; mask targets
are cut from masks on the image's pixels, detectron2 can draw polygons on a region's 28 × 28; a
keypoint region without a visible keypoint goes through the head, without a loss; DensePose's coarse
parts are learned from regions in which no annotated point lies, too. So expect close but not equal
AP, and let a report say which library a number is from.
"""

from pathlib import Path

from components.core.errors import ConfigError
from components.detection.interface import Detector, Head
from components.detection.libraries.torchvision.detector import TorchvisionDetector
from components.detection.libraries.torchvision.features import build_features
from components.detection.libraries.torchvision.proposals import build_proposals
from components.detection.libraries.torchvision.regions import build_regions
from components.detection.model import ModelConfig
from components.vision.backbones import load_backbone, read_card


def build(model: ModelConfig, backbone: Path, head: Head) -> Detector:
    """Build a detector; everything but the backbone is drawn from torch's random state.

    Args:
        model: What it is.
        backbone: The artifact of `convert`.
        head: What the data asks for.

    Raises:
        DataError: if the backbone is damaged or BGR.
        ConfigError: if the model has a keypoint head and the data no keypoints.
    """
    if model.keypoints and not head.keypoints:
        raise ConfigError(
            "model.keypoints is true, and the data has no keypoints; set it to false, or give data "
            "that has"
        )
    card = read_card(backbone)
    features, conv5 = build_features(model, load_backbone(backbone))
    return TorchvisionDetector(
        features,
        build_proposals(model, features),
        build_regions(model, head, features, conv5),
        card,
    )
