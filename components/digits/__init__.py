"""The stage `digits`: the miniature world, real handwritten digits in public data set layouts."""

from components.core.dataset import datasets
from components.core.stage import Port, Resources, Stage
from components.rendering.config import DigitsConfig, PicturesConfig

__all__ = ["STAGE", "DigitsConfig", "PicturesConfig"]

STAGE = Stage(
    name="digits",
    summary="Write scenes of real handwritten digits in the layouts of the public data sets.",
    config=DigitsConfig,
    inputs={},
    outputs={
        dataset.name: Port("Dataset", dataset.miniature.description)
        for dataset in datasets()
        if dataset.miniature
    },
    run="components.digits.write:run",
    resources=Resources(cpus=1, memory=2),
)
