"""Stage: linear classification and kNN of stored features, the usual measures of them."""

from typing import Annotated, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from components.core.config import Config
from components.core.main import main
from components.core.stage import Port, Resources, Stage
from components.vision.config import ALL, Percent

Grid = Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]


class ProbeConfig(Config):
    """Multinomial logistic regression and kNN on pooled features, without augmentation.

    The regression is that of Kornblith et al. 2019 and of SimCLR (Chen et al. 2020, B.8.1):
    L-BFGS on all features at once, with the weight of an L2 penalty that does best on a part of
    the training images. It is not the paper's protocol (Sec. 4.1), which the stage
    `classification.linear` has.
    """

    labels: Percent = ALL
    """Percent of the training images whose labels are learned from. `seed` draws them; smaller
    shares are parts of larger ones, and every class is in each."""
    seed: NonNegativeInt = 0
    """Of that share, and of the part on which the penalty is chosen; a trial is a seed."""
    l2: Grid = tuple(round(10 ** (-half / 2), 9) for half in range(-2, 13))
    """Weights of the penalty to choose from, beside a mean cross-entropy, for features of mean zero
    and mean square one."""
    held_out: Percent = 20.0
    """Percent of each class's images on which they are compared."""
    iterations: PositiveInt = 500
    """Steps of L-BFGS at most."""
    neighbours: PositiveInt = 20
    """How many training images vote; all if there are fewer (Wu et al. 2018; Caron et al. 2021)."""
    temperature: PositiveFloat = 0.07
    """Of the votes: exp(cosine / temperature) (Wu et al. 2018)."""

    def miniature(self) -> Self:
        """Derive the experiment for the digits world: nothing about it is large."""
        return self


STAGE = Stage(
    name="classification.probe",
    summary="Classify stored features linearly and by kNN.",
    config=ProbeConfig,
    inputs={"features": Port("Dataset", "the artifact of classification.features")},
    outputs={
        "linear": Port("Metrics", "top-1 and top-5 accuracy, per_class.json, predictions.jsonl"),
        "knn": Port("Metrics", "top-1 accuracy, per_class.json"),
    },
    run="components.classification.probing:run",
    resources=Resources(gpus=1, cpus=8, memory=64),
)

if __name__ == "__main__":
    main(__spec__.name)
