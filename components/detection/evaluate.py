"""Stage: the figures of a trained detector, or of predictions that are stored, without training."""

from collections.abc import Mapping

from pydantic import PositiveInt

from components.core.config import Config
from components.core.dataset import find_dataset
from components.core.main import main
from components.core.stage import Port, Resources, Stage
from components.detection.config import IMAGE, INPUTS, OUTPUTS, DatasetName
from components.vision.config import LoaderConfig


class EvaluateDetectionConfig(Config):
    """What to measure on; how images are shown to a detector is in its own config."""

    dataset: DatasetName = "coco"
    """Which data set's validation images and metric."""
    without_geometry: bool = False
    """Measure boxes only, where DensePose's files of the body's geometry are not at hand."""
    test_batch: PositiveInt = 4
    """Images that each process evaluates at once, if they are of one size."""
    loader: LoaderConfig = LoaderConfig()
    """How images reach a process."""
    processes: PositiveInt | None = None
    """Processes of a node; one for each GPU by default, one on a machine without."""

    def layouts(self) -> Mapping[str, str]:
        """Return the layout of the data."""
        return {"data": find_dataset(self.dataset, "detection").name}


STAGE = Stage(
    name="detection.evaluate",
    summary="Measure a trained detector, or stored predictions, on a data set's validation images.",
    config=EvaluateDetectionConfig,
    inputs={
        "data": INPUTS["data"],
        "model": Port("Model", "a detector; or give predictions", optional=True),
        "backbone": Port("Model", "which the detector was trained from", optional=True),
        "predictions": Port(
            "Dataset", "in the data set's result format, named as training names it", optional=True
        ),
    },
    outputs={"metrics": OUTPUTS["metrics"]},
    run="components.detection.measure:run",
    image=IMAGE,
    resources=Resources(gpus=1, cpus=16, memory=64, shared_memory=16),
)

if __name__ == "__main__":
    main(__spec__.name)
