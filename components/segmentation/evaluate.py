"""Stage: the mIoU of a trained FCN, or of label maps that are stored, without training."""

from collections.abc import Mapping

from pydantic import PositiveInt

from components.core.config import Config
from components.core.dataset import find_dataset
from components.core.main import main
from components.core.stage import Port, Resources, Stage
from components.segmentation import DATA, METRICS, DatasetName
from components.vision.config import LoaderConfig


class EvaluateSegmentationConfig(Config):
    """What to measure on."""

    dataset: DatasetName = "voc"
    """Which data set it is, by its layout."""
    split: str | None = None
    """List of images; by default the one that training measures on."""
    test_batch: PositiveInt = 4
    """Images that each process evaluates at once, if they are of one size."""
    loader: LoaderConfig = LoaderConfig()
    """How images reach the process."""
    processes: PositiveInt | None = None
    """Processes of a node; one for each GPU by default, one on a machine without."""

    def layouts(self) -> Mapping[str, str]:
        """Return the layout of the data."""
        return {"data": find_dataset(self.dataset, "segmentation").name}


STAGE = Stage(
    name="segmentation.evaluate",
    summary="Measure the mIoU of a trained FCN, or of stored label maps (Appendix A.5).",
    config=EvaluateSegmentationConfig,
    inputs={
        "data": DATA,
        "model": Port("Model", "segmentation's artifact; or give predictions", optional=True),
        "predictions": Port("Dataset", "label maps, named as segmentation's are", optional=True),
    },
    outputs={"metrics": METRICS},
    run="components.segmentation.measure:run",
    resources=Resources(gpus=1, cpus=16, memory=32, shared_memory=16),
)

if __name__ == "__main__":
    main(__spec__.name)
