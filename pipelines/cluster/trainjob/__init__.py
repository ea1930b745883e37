"""A step of more GPUs than a node has: a TrainJob of Kubeflow, followed from the step's own pod.

    python -m pipelines.cluster.trainjob --config JSON -- python -m components.NAME ...

After `--` stands the stage's own command line, with URLs for its artifacts: every pod of the
TrainJob runs it, and the first node's writes. Nothing here imports the Kubernetes client.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Self

from pydantic import Field, NonNegativeInt, PositiveInt

from components.core.config import Config
from components.core.stage import Resources
from pipelines.backends.cluster import ClusterOptions, Toleration

MODULE = __name__
SEPARATOR = "--"


class SecretField(Config):
    """Where the value of a variable lies; the value itself is never written down."""

    secret: str
    key: str


class TrainJobConfig(Config):
    """What a TrainJob asks of the cluster: the follower's config."""

    nodes: int = Field(ge=2)
    """Pods, each on a node of its own if it takes all GPUs."""
    processes: PositiveInt
    """Training processes of a pod; one for each GPU."""
    image: str
    """Reference of the stage's image."""
    runtime: str
    """TrainingRuntime in the namespace of the pod that follows."""
    cpus: str
    """CPU cores of a pod, as Kubernetes writes them."""
    sure_cpus: str | None = None
    """What of them no other pod can take; all by default."""
    memory: str
    """Memory of a pod, as Kubernetes writes it; what lies in /dev/shm counts."""
    gpus: NonNegativeInt = 0
    """GPUs of a pod."""
    accelerator: str = "nvidia.com/gpu"
    """Resource name of a GPU."""
    shared_memory: NonNegativeInt = 0
    """Size of /dev/shm, GiB."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Variables of the stage."""
    secrets: dict[str, SecretField] = Field(default_factory=dict)
    """Variables of the stage whose values are in secrets."""
    claims: dict[str, str] = Field(default_factory=dict)
    """Persistent volume claim by the folder that it is mounted at, to be read."""
    config_maps: dict[str, str] = Field(default_factory=dict)
    """Config map by the folder that it is mounted at."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the nodes that pods may run on."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints of nodes that pods put up with."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels of the TrainJob; a Kueue queue is one."""

    @classmethod
    def share(
        cls,
        wanted: Resources,
        options: ClusterOptions,
        *,
        nodes: int,
        image: str,
        environment: Mapping[str, str],
        claims: Mapping[str, str],
        store_secret: str,
        config_maps: Mapping[str, str] | None = None,
        sure_cpus: str | None = None,
    ) -> Self:
        """Share what a stage wants out over nodes, to each the same.

        Args:
            wanted: Of a stage, in all.
            options: Of the cluster.
            nodes: How many; they share its GPUs evenly. Without GPUs a node has one process.
            image: Reference of the image, or what a platform replaces by it; so the others.
            environment: Variables of the stage.
            claims: Persistent volume claim by the folder that it is mounted at.
            store_secret: Secret with the store's credentials.
            config_maps: Config map by the folder that it is mounted at.
            sure_cpus: CPU cores of a pod that no other can take.
        """
        shared_memory = math.ceil(wanted.shared_memory / nodes)
        fields = {
            "AWS_ACCESS_KEY_ID": options.access_key_field,
            "AWS_SECRET_ACCESS_KEY": options.secret_key_field,
        }
        return cls(
            nodes=nodes,
            processes=wanted.gpus // nodes or 1,
            image=image,
            runtime=options.trainer_runtime,
            cpus=str(math.ceil(wanted.cpus / nodes)),
            sure_cpus=sure_cpus,
            memory=f"{math.ceil(wanted.memory / nodes) + shared_memory}Gi",
            gpus=wanted.gpus // nodes,
            accelerator=options.accelerator,
            shared_memory=shared_memory,
            environment=dict(environment),
            secrets={
                variable: SecretField(secret=store_secret, key=key)
                for variable, key in fields.items()
            },
            claims=dict(claims),
            config_maps=dict(config_maps or {}),
            node_selector=options.node_selector,
            tolerations=options.tolerations,
            labels=options.labels,
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
