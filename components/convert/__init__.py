"""Stage: any ResNet checkpoint to a backbone for torchvision and for detectron2, proven equal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator

from components.core.config import Config
from components.core.stage import Port, Resources, Stage
from components.vision.architectures import Architecture, relative_cost

Source = Literal["pretrain", "classification", "segmentation", "moco", "resnet", "random"]
"""What a checkpoint is.

`pretrain`, `classification`, `segmentation`: artifacts of the stages of those names. `moco`: a
file with a query encoder of MoCo in it, v1 to v3, of the authors' or of other code. `resnet`: any
other ResNet under the names of torchvision, detectron2 or Hugging Face, or numbered by an
`nn.Sequential`, whatever stands before them. `random`: no checkpoint, a seed.
"""

SOURCES_WITHOUT_FILE = ("pretrain", "classification", "segmentation", "random")


class ConvertConfig(Config):
    """Conversion of a checkpoint to a backbone."""

    source: Source | Literal["auto"] = "auto"
    """What the checkpoint must be; `auto` finds out, and the manifest says what was found."""
    architecture: Architecture | Literal["auto"] = "auto"
    """What the checkpoint must be; `auto` finds out by its shapes, and is a resnet50 where weights
    are drawn. The miniature's own is for the miniature alone."""
    origin: str | None = Field(default=None, min_length=1)
    """How reports call this initialisation; by default what the checkpoint tells: `moco`,
    `supervised`, `random`, or `unknown`."""
    seed: NonNegativeInt = 0
    """Of the random initialisation (source `random` only)."""
    prefix: str | None = None
    """What the encoder's tensor names begin with, where a file has several encoders: `backbone.`,
    or with the keys that lead to them, `teacher.backbone.`."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{8,64}$")] | None = None
    """First 8 or more digits of the hash that the file must have."""
    tolerance: PositiveFloat = 1e-4
    """Largest difference of any feature, res2 to res5, between source and result."""

    @model_validator(mode="after")
    def _options_fit_the_source(self) -> Self:
        for name in ("prefix", "sha256"):
            if getattr(self, name) is not None and self.source in SOURCES_WITHOUT_FILE:
                raise ValueError(f"{name} is for a file, and source {self.source!r} reads none")
        if self.seed and self.source != "random":
            raise ValueError(f"seed is for source 'random', and source is {self.source!r}")
        return self

    def miniature(self) -> Self:
        """Derive the same conversion for the small backbone of the digits world."""
        return self.derive(architecture="resnet_digits")

    def inspect(self, inputs: Mapping[str, Path]) -> None:
        """Find the encoder by the checkpoint's header."""
        from components.convert.sources import locate

        if "checkpoint" in inputs:
            locate(inputs["checkpoint"], self)

    def encoder_cost(self, inputs: Mapping[str, Path]) -> float | None:
        """Say what the encoder in the checkpoint costs, or that whose weights are drawn."""
        from components.convert.sources import locate

        if "checkpoint" in inputs:
            return relative_cost(locate(inputs["checkpoint"], self).architecture)
        if self.source != "random":
            return None
        return 1.0 if self.architecture == "auto" else relative_cost(self.architecture)


STAGE = Stage(
    name="convert",
    summary="Convert a checkpoint to a backbone for torchvision and detectron2, and prove it equal",
    config=ConvertConfig,
    inputs={
        "checkpoint": Port(
            "Model",
            "pretrain's, classification's or segmentation's artifact, a .pth, .pth.tar, .ckpt, "
            ".safetensors or detectron2's .pkl file, or a folder of Hugging Face",
            optional=True,
            foreign=True,
        ),
    },
    outputs={
        "backbone": Port("Model", "the weights under both libraries' names, and backbone.json"),
    },
    run="components.convert.conversion:run",
    resources=Resources(cpus=2, memory=8),
)
