"""What a compiled pipeline asks of a cluster: images, sizes of pods, names of secrets and volumes.

Everything here is known without Kubeflow Pipelines installed.
"""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from components.core.config import Config, nearest
from components.core.stage import stage_names


class Toleration(Config):
    """A taint that pods put up with, as Kubernetes writes it."""

    key: str | None = None
    operator: Literal["Equal", "Exists"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class ClusterOptions(Config):
    """Which cluster, and what a compiled pipeline asks of it.

    The chart writes them for its namespace into the config map `moco-transfer`, key
    `cluster.json`; commands that talk to the cluster take them from there.
    """

    context: str | None = None
    """Context of the kubeconfig; by default its current one."""
    namespace: str = "kubeflow"
    """Namespace of the runs' pods."""
    server: str | None = None
    """URL of the Kubeflow Pipelines API; by default its service, through the Kubernetes API."""
    server_namespace: str = "kubeflow"
    """Namespace of that service."""
    server_in_cluster: str | None = None
    """URL of that API as pods reach it; by default its service. The pods of a run that is cut into
    parts begin the next ones there."""
    experiment: str = "moco-transfer"
    """Experiment of Kubeflow Pipelines that the runs stand under."""
    service_account: str | None = None
    """Service account of the runs' pods; by default the one that the server gives them."""
    root: str = "minio://mlpipeline/v2/artifacts"
    """Pipeline root: where the runs' artifacts go."""
    images: dict[str, str] = Field(default_factory=dict)
    """Reference of each image by its name below `images/`; by default what was built last."""
    allow_tags: bool = False
    """Whether images of full-scale runs may be tags, behind which the content can change."""
    pull_secrets: tuple[str, ...] = ()
    """Secrets with the credentials of the images' registry."""
    accelerator: str = "nvidia.com/gpu"
    """Resource name of a GPU on the cluster's nodes."""
    gpus: dict[str, PositiveInt] = Field(default_factory=dict)
    """GPUs of a stage by its name, in place of what it declares; cores and memory go with them."""
    gpus_per_node: PositiveInt = 8
    """GPUs of a node; a step that wants more becomes a TrainJob over several nodes."""
    nodes: dict[str, PositiveInt] = Field(default_factory=dict)
    """Nodes of a stage by its name, in place of as few as have its GPUs; also in miniature, which
    then trains on several nodes without GPUs."""
    trainer_runtime: str = "moco-transfer"
    """TrainingRuntime, in the namespace of the runs, for steps of more than one node."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the nodes that pods may run on."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints of nodes that pods put up with."""
    claims: dict[str, str] = Field(default_factory=dict)
    """Persistent volume claim of each mounted data set; by default its name with dashes."""
    store_endpoint: str = "http://seaweedfs.kubeflow:9000"
    """The S3 store behind the pipeline root, as pods reach it."""
    store_region: str | None = None
    """Region of the store; asked from it by default."""
    store_ca: str | None = None
    """Config map whose key `ca.crt` holds the certificates to trust for the store."""
    store_secret: str = "mlpipeline-minio-artifact"  # noqa: S105 - a secret's name
    """Secret with the store's credentials, in the namespace of the runs."""
    access_key_field: str = "accesskey"
    """Field of that secret which holds the access key id."""
    secret_key_field: str = "secretkey"  # noqa: S105 - a field's name
    """Field of that secret which holds the secret access key."""
    user: PositiveInt = 1000
    """User id of every container; never root."""
    group: PositiveInt = 1000
    """Group id of every container."""
    retries: NonNegativeInt = 3
    """How often a pod that was lost is started again."""
    retry_delay: PositiveInt = 30
    """Seconds before the first retry; every further one waits twice as long."""
    retry_hours: PositiveInt = 24 * 14
    """Hours from a step's first attempt in which it is retried: longer than any training."""
    workflow_size: PositiveInt = 1 << 20
    """Bytes of a run's workflow that the cluster takes: its controller's MAX_WORKFLOW_SIZE."""
    cache: bool = True
    """Whether a step takes over the outputs of an earlier run that was the same in all."""
    labels: dict[str, str] = Field(default_factory=dict)
    """More labels for every pod; a Kueue queue is one: `kueue.x-k8s.io/queue-name`."""

    @field_validator("gpus", "nodes")
    @classmethod
    def _of_stages(cls, values: dict[str, int]) -> dict[str, int]:
        for name in values:
            if name not in (known := sorted(stage_names())):
                raise ValueError(f"there is no stage {name!r}{nearest(name, known)}")
        return values
