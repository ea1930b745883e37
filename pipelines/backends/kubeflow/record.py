"""What a run's record says of a run on Kubeflow Pipelines."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.errors import DataError, UsageError
from pipelines.runs.folder import Run

NAME = "kubeflow"


class ClusterRun(BaseModel):
    """Where a submitted run is executed, and where its artifacts are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    """Its id in Kubeflow Pipelines; of one that was cut into parts the name of its folder."""
    pipeline: str
    """Name of the compiled pipeline."""
    namespace: str
    server: str
    """Of the API, for people; commands find it through the options of the cluster."""
    artifacts: str
    """URL of the run's folder in the store: `ROOT/PIPELINE/RUN`; below it `TASK/ID/PORT`."""
    cut: bool = False
    """Whether it consists of parts, each of which is a run of Kubeflow's of its own."""

    @property
    def store(self) -> str:
        """URL of the folder that holds the pipeline's runs."""
        return self.artifacts.rpartition("/")[0]

    def part(self, run: str) -> Self:
        """Return where a part of it is executed."""
        update = {"run": run, "artifacts": f"{self.store}/{run}", "cut": False}
        return self.model_copy(update=update)

    @classmethod
    def of(cls, run: Run) -> Self:
        """Read it from a run's record.

        Raises:
            UsageError: if the run was not submitted to Kubeflow Pipelines.
            DataError: if the record does not say all of it.
        """
        record = run.record
        if record.backend != NAME:
            raise UsageError(
                f"run {run.id} was executed on this machine, not submitted to a cluster"
                if record.artifacts is None
                else f"run {run.id} is of the backend {record.backend}, not of {NAME}"
            )
        try:
            return cls(artifacts=record.artifacts or "", **record.place)
        except ValidationError as error:
            raise DataError(f"{run.folder} is no run of this version: {error}") from None

    def write(self, run: Run) -> None:
        """Write it into a run's record."""
        place = self.model_dump(exclude={"artifacts"}, exclude_defaults=True)
        update: dict[str, Any] = {"backend": NAME, "place": place, "artifacts": self.artifacts}
        run.write_record(run.record.model_copy(update=update))
