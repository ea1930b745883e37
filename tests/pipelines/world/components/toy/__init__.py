"""Stage: a tiny real stage that works, waits, saves and fails as its config says."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from components.core.config import Config
from components.core.stage import Port, Resources, Stage


class ToyConfig(Config):
    """What the toy does."""

    value: float = 0.0
    """what it measures"""
    ticks: NonNegativeInt = 0
    """how many times it waits"""
    wait: NonNegativeFloat = 0.02
    """seconds of each"""
    fails: NonNegativeInt = 0
    """how many attempts fail before one goes well"""
    how: Literal["data", "defect", "killed", "silent"] = "data"
    """how they fail"""
    orphan: bool = False
    """leave a process behind"""
    needs: str = ""
    """a package"""
    seed: Annotated[int, Field(ge=0)] = 0

    def requires(self) -> dict[str, str]:
        """Name the package that it is told to need."""
        return {self.needs: "no shop sells it"} if self.needs else {}


STAGE = Stage(
    name="toy",
    summary="Measure a value that the config states.",
    config=ToyConfig,
    inputs={
        "model": Port("Model", "what came before", optional=True, foreign=True),
        "data": Port("Dataset", "a data set", optional=True),
        "others": Port("Metrics", "any number of measurements", many=True),
    },
    outputs={
        "model": Port("Model", "the value as a model"),
        "metrics": Port("Metrics", "the value as a measurement"),
    },
    run="components.toy.work:run",
    resources=Resources(gpus=2),
    resumable=True,
)
