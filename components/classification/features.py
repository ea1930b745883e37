"""Stage: the features of every image of a data set, once for all that is learned from them."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import PositiveInt

from components.classification.config import INPUTS, DatasetName
from components.core.config import Config, Incidental
from components.core.dataset import find_dataset
from components.core.gpus import V100S, Gpus
from components.core.main import main
from components.core.stage import Port, Resources, Stage
from components.vision.config import EvaluationConfig, LoaderConfig, Percent


class FeaturesConfig(Config):
    """What images are shown to a frozen backbone, and how: one view of each, no augmentation."""

    dataset: DatasetName = "imagenet"
    """Which data set it is, by its layout."""
    held_out: Percent | None = None
    """Where the data has no validation split, percent of each class that are held out as one, the
    same for all trainings; null refuses such data."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """The view of an image."""
    batch_size: Annotated[PositiveInt, Incidental()] = 256
    """Images at a time over all processes."""
    counted: Annotated[PositiveInt | None, Incidental()] = None
    """How many there are, where a plan has counted them; only its estimates depend on that."""
    loader: LoaderConfig = LoaderConfig()
    """How images reach the process."""
    processes: PositiveInt | None = None
    """Processes of a node; one for each GPU by default, one on a machine without."""

    def layouts(self) -> Mapping[str, str]:
        """Return the layout of the data."""
        return {"data": find_dataset(self.dataset, "classification").name}

    def miniature(self) -> Self:
        """Derive the experiment for the digits world."""
        return self.derive(
            batch_size=64,
            evaluation=self.evaluation.derive(resize=48, crop=48).model_dump(mode="json"),
            loader={"workers": 0},
        )

    def gpu_hours(self, gpus: Gpus = V100S) -> float | None:
        """Estimate the hours of GPUs by the rate of linear classification, forward alike."""
        rate = gpus.per_second("linear", self.batch_size) or 1000
        return self.counted / rate / 3600 if self.counted else None


STAGE = Stage(
    name="classification.features",
    summary="Extract the features of labelled images from a frozen backbone.",
    config=FeaturesConfig,
    inputs=INPUTS,
    outputs={
        "features": Port(
            "Dataset", "pooled features and labels of each split, .npy, and features.json"
        )
    },
    run="components.classification.extract:run",
    resources=Resources(gpus=8, cpus=64, memory=128, shared_memory=64),
)

if __name__ == "__main__":
    main(__spec__.name)
