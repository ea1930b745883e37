"""What a miniature world looks like: the options of the stage `digits`."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, model_validator

from components.core.config import Config
from components.core.dataset import datasets

Fraction = Annotated[float, Field(ge=0, le=1)]


class PicturesConfig(Config):
    """Pictures with several digits, each an instance with mask, keypoints and surface."""

    pixels: Annotated[int, Field(ge=64, le=1024)] = 96
    """Longer side of a picture, pixels."""
    train: Annotated[int, Field(ge=20)] = 400
    """Training pictures of COCO and LVIS; the other data sets have half of them each."""
    val: Annotated[int, Field(ge=20)] = 100
    """Validation pictures of COCO and LVIS; the other data sets have half of them each."""
    digits: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(le=20)]] = (1, 4)
    """In a picture, least and most."""
    digit_size: tuple[Fraction, Fraction] = (0.36, 0.6)
    """Side of a digit over the picture's shorter side, least and most."""
    crowds: Fraction = 0.08
    """Share of COCO's and Cityscapes' pictures with many tiny digits of one kind, one crowd."""

    @model_validator(mode="after")
    def _ranges_ascend(self) -> Self:
        for name, (least, most) in (("digits", self.digits), ("digit_size", self.digit_size)):
            if least > most:
                raise ValueError(f"{name}: {least} is more than {most}")
        return self


class DigitsConfig(Config):
    """Scenes with real handwritten digits; every size that matters for the miniature."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Of the scenes; which digits are for training never depends on it."""
    pixels: Annotated[int, Field(ge=16, le=512)] = 48
    """Side of a scene, pixels."""
    train_scenes: Annotated[int, Field(ge=10)] = 4200
    """Training scenes of each layout, from 1,400 digits."""
    val_scenes: Annotated[int, Field(ge=10)] = 397
    """Validation scenes of each layout, from 397 other digits."""
    digit_size: tuple[Fraction, Fraction] = (0.62, 0.92)
    """Side of the main digit over that of the scene, least and most."""
    texture: Fraction = 0.25
    """Strength of the texture behind the digits; 0 for a plain ground."""
    colours: Annotated[int, Field(ge=0, le=64)] = 0
    """Hues of the ground, a scene has one of them; 0 for a grey ground."""
    companions: Annotated[int, Field(ge=0, le=8)] = 0
    """Most small, faint digits beside the main one."""
    imbalance: Annotated[float, Field(ge=1)] = 10.0
    """In iNaturalist's layout: training images of the commonest category over the rarest's."""
    pictures: PicturesConfig = PicturesConfig()
    """With several digits, of the layouts for detection and segmentation."""
    jpeg_quality: Annotated[int, Field(ge=50, le=100)] = 95
    """Of every image file."""

    @model_validator(mode="after")
    def _sizes_ascend(self) -> Self:
        if self.digit_size[0] > self.digit_size[1]:
            raise ValueError(f"digit_size: {self.digit_size[0]} is more than {self.digit_size[1]}")
        return self

    def layouts(self) -> Mapping[str, str]:
        """Return the data set that each output is laid out as."""
        return {dataset.name: dataset.name for dataset in datasets() if dataset.miniature}
