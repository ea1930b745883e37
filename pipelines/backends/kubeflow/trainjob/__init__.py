"""A step of more GPUs than a node has: a TrainJob of Kubeflow, followed from the step's own pod.

    python -m pipelines.backends.kubeflow.trainjob --config JSON -- python -m components.NAME ...

After `--` stands the stage's own command line, with URLs for its artifacts: every pod of the
TrainJob runs it, and the first node's writes. Nothing here imports the Kubernetes client.
"""

from collections.abc import Sequence
from typing import Self

from pydantic import Field, PositiveInt

from components.core.config import Config
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.backends.kubeflow.pod import Pod

MODULE = __name__
SEPARATOR = "--"


class TrainJobConfig(Config):
    """What a TrainJob asks of the cluster: the follower's config."""

    nodes: int = Field(ge=2)
    """Pods, each on a node of its own if it takes all GPUs."""
    processes: PositiveInt
    """Training processes of a pod; one for each GPU."""
    runtime: str
    """TrainingRuntime in the namespace of the pod that follows."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels of the TrainJob; a Kueue queue is one."""
    pod: Pod
    """What each of its pods asks for; the runtime says as whom they run."""

    @classmethod
    def of(cls, pod: Pod, nodes: int, options: ClusterOptions) -> Self:
        """Describe the TrainJob of several pods of a description."""
        return cls(
            nodes=nodes,
            processes=int(pod.gpus) or 1,
            runtime=options.trainer_runtime,
            labels=options.labels,
            pod=pod,
        )


def follower_argv(
    config: TrainJobConfig, stage_argv: Sequence[str], executor_input: str | None = None
) -> list[str]:
    """Build the follower's command line, without the interpreter.

    Args:
        config: What the TrainJob asks of the cluster.
        stage_argv: Of the stage, without the interpreter and with URLs, as `Stage.argv` gives it.
        executor_input: The platform's description of the task, if it has one.
    """
    argv = ["-m", MODULE, "--config", config.to_json()]
    if executor_input is not None:
        argv += ["--executor-input", executor_input]
    return [*argv, SEPARATOR, "python", *stage_argv]
