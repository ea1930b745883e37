"""What a stage's config says about its images: augmentation, evaluation crops, loading."""

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from components.core.config import Config, Incidental

Probability = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(gt=0, le=100)]
ALL = 100.0
"""Percent."""
Channels = tuple[float, float, float]

IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)


class AugmentationConfig(Config):
    """Random views of an image. The defaults are MoCo v1's (Sec. 3.3, "Technical details").

    The order is that of the released code: crop and resize, grayscale before the
    colour jitter or after it, blur, flip, normalisation.
    """

    crop: PositiveInt = 224
    """Side of the square view, pixels."""
    crop_area: tuple[PositiveFloat, PositiveFloat] = (0.2, 1.0)
    """Share of the image's area that a crop covers, least and most."""
    crop_aspect: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)
    """Width over height of a crop before it is resized, least and most."""
    flip_probability: Probability = 0.5
    """Chance of a horizontal flip."""
    grayscale_probability: Probability = 0.2
    """Chance that a view loses its colours."""
    grayscale: Literal["before_jitter", "after_jitter"] = "before_jitter"
    """Before the jitter as in MoCo v1, or after it as in MoCo v2."""
    jitter_probability: Probability = 1.0
    """Chance that a view gets the colour jitter."""
    brightness: NonNegativeFloat = 0.4
    """Jitter: factors from 1 - x to 1 + x."""
    contrast: NonNegativeFloat = 0.4
    """Jitter: factors from 1 - x to 1 + x."""
    saturation: NonNegativeFloat = 0.4
    """Jitter: factors from 1 - x to 1 + x."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.4
    """Jitter: turns of the colour circle from -x to x."""
    blur_probability: Probability = 0.0
    """Chance of a Gaussian blur; MoCo v2 has 0.5."""
    blur_sigma: tuple[PositiveFloat, PositiveFloat] = (0.1, 2.0)
    """Standard deviation of the blur, pixels of the view, least and most."""
    mean: Channels = IMAGENET_MEAN
    """Subtracted from RGB in 0..1."""
    std: Channels = IMAGENET_STD
    """RGB in 0..1 is divided by it."""
    colour: Literal["loader", "device"] = "device"
    """Where colours and blur are computed: by the loading processes, or on the training device."""

    @model_validator(mode="after")
    def _ranges_ascend(self) -> Self:
        for name in ("crop_area", "crop_aspect", "blur_sigma"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: the least, {low}, is more than the most, {high}")
        if self.crop_area[1] > 1:
            raise ValueError(
                f"crop_area: a crop covers at most 1.0 of its image, not {self.crop_area[1]}"
            )
        return self


class EvaluationConfig(Config):
    """The one view of an image in evaluation: resize the shorter side, crop the centre."""

    resize: PositiveInt = 256
    """Length of the shorter side after resizing, pixels."""
    crop: PositiveInt = 224
    """Side of the square view, pixels."""
    mean: Channels = IMAGENET_MEAN
    """Subtracted from RGB in 0..1."""
    std: Channels = IMAGENET_STD
    """RGB in 0..1 is divided by it."""

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.crop > self.resize:
            raise ValueError(f"crop {self.crop} does not fit into images resized to {self.resize}")
        return self


class LoaderConfig(Config):
    """How images reach the training process."""

    workers: Annotated[NonNegativeInt, Incidental()] = 8
    """Loading processes for each training process; 0 loads in the training process itself."""
    prefetch: Annotated[PositiveInt, Incidental()] = 4
    """Batches that each loading process prepares ahead."""
    cache: Annotated[NonNegativeInt, Incidental()] = 0
    """Decoded images that each loading process keeps in memory, at most this many MiB."""
    read_ahead: Annotated[PositiveInt, Incidental()] = 512
    """Images of shards in a bucket that each training process holds encoded, at most, MiB."""
    disk_cache: Annotated[NonNegativeInt, Incidental()] = 0
    """Of such shards, what each training process keeps in TMPDIR once it was read, at most, GiB."""
    max_corrupt_fraction: Annotated[float, Field(ge=0, lt=1), Incidental()] = 0.001
    """Share of unreadable images that is tolerated; unless it is 0, one image always is."""


def moco_v1(crop: int = 224) -> AugmentationConfig:
    """Return the pre-training augmentation of the paper (Sec. 3.3)."""
    return AugmentationConfig(crop=crop)


def moco_v2(crop: int = 224) -> AugmentationConfig:
    """Return the augmentation of MoCo v2: weaker hue, grayscale after it, and blur."""
    return AugmentationConfig(
        crop=crop,
        jitter_probability=0.8,
        hue=0.1,
        grayscale="after_jitter",
        blur_probability=0.5,
    )


def fine_tuning(crop: int = 224) -> AugmentationConfig:
    """Return the augmentation of supervised training: crops from 8 % of the area, flips."""
    return AugmentationConfig(
        crop=crop,
        crop_area=(0.08, 1.0),
        grayscale_probability=0.0,
        jitter_probability=0.0,
    )
