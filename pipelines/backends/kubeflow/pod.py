"""What a pod of ours asks of a cluster, said once.

The compiled task of a step, the pods of its TrainJob and the doctor's trial pods are written from
this description. Its texts may hold placeholders of the pipeline's parameters: Kubeflow Pipelines
fills them in when a run starts, the doctor before.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from pydantic import Field, NonNegativeInt, PositiveInt

from components.core.config import Config, parse_config
from components.core.stage import Resources
from components.core.store_environment import ACCESS_KEY, SECRET_KEY, environment_of
from pipelines.backends.kubeflow.names import mount_path
from pipelines.backends.kubeflow.next_parts import ACCESS_LABEL
from pipelines.backends.kubeflow.options import ClusterOptions, Toleration
from pipelines.backends.kubeflow.parameters import (
    filled,
    placeholder,
    pvc_parameter,
    reads_store,
    resource_parameter,
)
from pipelines.backends.kubeflow.sizes import MINIATURE, MINIATURE_CPU, nodes_at, resources_at
from pipelines.plan import Mounted, Plan, Step

SCRATCH = "/tmp"  # noqa: S108 - a volume of the pod's own
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - a volume of the pod's own
CERTIFICATES = "/etc/moco-transfer/certificates"
IMAGE = "image"
"""Parameter of a component with the image's reference; a stage finds it in the executor input."""
STORE_SECRET = "store_secret"  # noqa: S105 - a parameter's name

# The user has no entry in the image's passwd: libraries ask for a name (torch's compiler does)
# and for a home with room for their caches.
USER_ENVIRONMENT = {"HOME": SCRATCH, "USER": "moco"}

Object = dict[str, Any]


class SecretField(Config):
    """Where the value of a variable lies; the value itself is never written down."""

    secret: str
    key: str


class Pod(Config):
    """What a pod asks of a cluster, whoever makes it."""

    image: str
    """Reference of its image."""
    cpus: str
    """CPU cores that it may use, as Kubernetes writes them."""
    memory: str
    """Memory that it may use, as Kubernetes writes it; what lies in /dev/shm counts."""
    sure_cpus: str | None = None
    """What of the cores no other pod can take; all by default."""
    sure_memory: str | None = None
    """What of the memory no other pod can take; all by default."""
    gpus: str = "0"
    """How many GPUs it has to itself."""
    accelerator: str = "nvidia.com/gpu"
    """Resource name of a GPU on the nodes."""
    shared_memory: NonNegativeInt = 0
    """Size of /dev/shm, GiB."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Variables."""
    secrets: dict[str, SecretField] = Field(default_factory=dict)
    """Variables whose values are in secrets."""
    claims: dict[str, str] = Field(default_factory=dict)
    """Persistent volume claim by the folder that it is mounted at, to be read."""
    config_maps: dict[str, str] = Field(default_factory=dict)
    """Config map by the folder that it is mounted at."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Its labels; a Kueue queue is one, and the chart's network policy asks for one."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the nodes that it may run on."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints of nodes that it puts up with."""
    pull_secrets: tuple[str, ...] = ()
    """Secrets with the credentials of the image's registry."""
    user: PositiveInt = 1000
    """User id; never root."""
    group: PositiveInt = 1000
    """Group id."""
    retries: NonNegativeInt = 0
    """How often it is made anew if it was lost."""
    retry_delay: PositiveInt = 30
    """Seconds before the first retry; every further one waits twice as long."""
    retry_hours: PositiveInt = 24 * 14
    """Hours from the first attempt in which it is retried."""

    def filled(self, values: Mapping[str, str]) -> Self:
        """Return it with values in place of the parameters' placeholders.

        Raises:
            ConfigError: if a value is none of its field.
        """
        escaped = {name: json.dumps(value)[1:-1] for name, value in values.items()}
        return parse_config(type(self), filled(self.to_json(), escaped))

    def limits(self) -> dict[str, str]:
        """Return what it may use, by the resource names of nodes."""
        gpus = {} if self.gpus == "0" else {self.accelerator: self.gpus}
        return {**gpus, "cpu": self.cpus, "memory": self.memory}

    def requests(self) -> dict[str, str]:
        """Return what it must be given."""
        sure = {"cpu": self.sure_cpus, "memory": self.sure_memory}
        return {**self.limits(), **{name: amount for name, amount in sure.items() if amount}}


def step_pod(plan: Plan, step: Step, options: ClusterOptions) -> Pod:
    """Describe the pods of a step; one that takes several nodes is shared out over them evenly.

    Raises:
        UsageError: if the options want a size that cannot be.
    """
    stage = step.stage
    wanted, nodes = resources_at(plan.scale, stage, options), nodes_at(plan.scale, stage, options)
    small = plan.scale == "digits"
    environment = dict(USER_ENVIRONMENT)
    if small:
        # Libraries count the node's cores, not those that the pod may use: their threads would
        # wait for each other at every operation.
        environment["OMP_NUM_THREADS"] = str(MINIATURE.cpus)
    stored = reads_store(step)
    mounted = sorted({source.name for _, source in step.sources() if isinstance(source, Mounted)})
    return Pod(
        image=placeholder(IMAGE),
        **(_named(step, wanted) if nodes == 1 else shared_size(wanted, nodes, options)),
        sure_cpus=MINIATURE_CPU if small else None,
        environment={**environment, **(store_environment(options) if stored else {})},
        secrets=store_secrets(options, placeholder(STORE_SECRET)) if stored else {},
        config_maps=store_certificates(options) if stored else {},
        claims={mount_path(name): placeholder(pvc_parameter(name)) for name in mounted},
        labels={
            **options.labels,
            "moco-transfer/recipe": plan.name,
            "moco-transfer/stage": stage.name,
        },
        **_placed(options),
        retries=options.retries,
        retry_delay=options.retry_delay,
        retry_hours=options.retry_hours,
    )


def trial_pod(
    image: str,
    options: ClusterOptions,
    *,
    secret: str | None = None,
    claims: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Pod:
    """Describe a small pod that looks at what the pods of steps will see.

    Args:
        image: Reference of its image.
        options: Of the cluster.
        secret: The secret with the store's credentials, if it is to reach the store.
        claims: Persistent volume claims by the folder that they are mounted at.
        labels: More labels.
    """
    return Pod(
        image=image,
        cpus="1",
        memory="1Gi",
        sure_cpus="100m",
        sure_memory="256Mi",
        environment={**USER_ENVIRONMENT, **(store_environment(options) if secret else {})},
        secrets=store_secrets(options, secret) if secret else {},
        config_maps=store_certificates(options) if secret else {},
        claims=dict(claims or {}),
        labels={"moco-transfer/stage": "doctor", **(labels or {})},
        **_placed(options),
    )


def part_pod(plan: Plan, options: ClusterOptions) -> Pod:
    """Describe the pod that follows a part of a run, and begins the next ones."""
    pod = trial_pod(placeholder(IMAGE), options, secret=placeholder(STORE_SECRET))
    return pod.model_copy(
        update={
            "labels": {
                **options.labels,
                "moco-transfer/recipe": plan.name,
                "moco-transfer/stage": "next-parts",
                ACCESS_LABEL: "true",
            },
            "retries": options.retries,
            "retry_delay": options.retry_delay,
            "retry_hours": options.retry_hours,
        }
    )


def follower_pod(pod: Pod) -> Pod:
    """Describe the pod that follows others of a description: it does little itself."""
    return pod.model_copy(
        update={
            "cpus": "1",
            "memory": "1Gi",
            "sure_cpus": "100m",
            "gpus": "0",
            "shared_memory": 0,
            "claims": {},
        }
    )


def store_environment(options: ClusterOptions) -> dict[str, str]:
    """Return the variables by which a pod finds the store; its credentials are `store_secrets`."""
    bundle = f"{CERTIFICATES}/ca.crt" if options.store_ca else None
    return environment_of(options.store_endpoint, options.store_region, bundle)


def store_secrets(options: ClusterOptions, secret: str) -> dict[str, SecretField]:
    """Return the variables with the store's credentials, by reference only."""
    return {
        ACCESS_KEY: SecretField(secret=secret, key=options.access_key_field),
        SECRET_KEY: SecretField(secret=secret, key=options.secret_key_field),
    }


def store_certificates(options: ClusterOptions) -> dict[str, str]:
    """Return the config map with the certificates to trust for the store, if there is one."""
    return {CERTIFICATES: options.store_ca} if options.store_ca else {}


def variables(pod: Pod) -> list[Object]:
    """Write its variables as Kubernetes does."""
    return [
        *({"name": name, "value": value} for name, value in pod.environment.items()),
        *(
            {"name": name, "valueFrom": {"secretKeyRef": {"name": field.secret, "key": field.key}}}
            for name, field in pod.secrets.items()
        ),
    ]


def volumes(pod: Pod) -> Iterator[tuple[Object, Object]]:
    """Write its volumes as Kubernetes does, each with where it is mounted."""

    def volume(name: str, folder: str, source: Object, **mount: Any) -> tuple[Object, Object]:
        return {"name": name, **source}, {"name": name, "mountPath": folder, **mount}

    if pod.shared_memory:
        memory = {"medium": "Memory", "sizeLimit": f"{pod.shared_memory}Gi"}
        yield volume("shared-memory", SHARED_MEMORY, {"emptyDir": memory})
    for number, (folder, claim) in enumerate(pod.claims.items()):
        source = {"persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        yield volume(f"data-{number}", folder, source, readOnly=True)
    for number, (folder, config_map) in enumerate(pod.config_maps.items()):
        source = {"configMap": {"name": config_map}}
        yield volume(f"config-{number}", folder, source, readOnly=True)


def tolerations(pod: Pod) -> list[Object]:
    """Write the taints that it puts up with as Kubernetes does."""
    return [taint.model_dump(exclude_none=True) for taint in pod.tolerations]


def pod_manifest(
    pod: Pod, name: str, command: Sequence[str], *, seconds: int, service_account: str | None
) -> Object:
    """Write a pod that runs once and passes *restricted*.

    Args:
        pod: What it asks of the cluster.
        name: Its name, and that of its container.
        command: Its command line.
        seconds: After which the cluster ends it.
        service_account: Its account; no credentials of that are mounted.
    """
    mounted = [({"name": "scratch", "emptyDir": {}}, {"name": "scratch", "mountPath": SCRATCH})]
    mounted += volumes(pod)
    spec: Object = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": seconds,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "imagePullSecrets": [{"name": secret} for secret in pod.pull_secrets],
        "nodeSelector": pod.node_selector,
        "tolerations": tolerations(pod),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": pod.user,
            "runAsGroup": pod.group,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [volume for volume, _ in mounted],
        "containers": [
            {
                "name": "main",
                "image": pod.image,
                "command": list(command),
                "env": variables(pod),
                "resources": {"requests": pod.requests(), "limits": pod.limits()},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [mount for _, mount in mounted],
            }
        ],
    }
    if service_account:
        spec["serviceAccountName"] = service_account
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": pod.labels},
        "spec": spec,
    }


def _named(step: Step, wanted: Resources) -> dict[str, Any]:
    """Return the size of a pod that takes all a step wants: parameters of the pipeline."""

    def of(resource: str) -> str:
        return placeholder(resource_parameter(resource, step.stage))

    size: dict[str, Any] = {
        "cpus": of("cpus"),
        "memory": of("memory"),
        "shared_memory": wanted.shared_memory,
    }
    gpus = {"gpus": of("gpus"), "accelerator": placeholder("accelerator_type")}
    return {**size, **gpus} if wanted.gpus else size


def shared_size(wanted: Resources, nodes: int, options: ClusterOptions) -> dict[str, Any]:
    """Return the size of one of several pods that share what a step wants."""
    shared_memory = math.ceil(wanted.shared_memory / nodes)
    return {
        "cpus": str(math.ceil(wanted.cpus / nodes)),
        "memory": f"{math.ceil(wanted.memory / nodes) + shared_memory}Gi",
        "gpus": str(wanted.gpus // nodes),
        "accelerator": options.accelerator,
        "shared_memory": shared_memory,
    }


def _placed(options: ClusterOptions) -> dict[str, Any]:
    """Return where pods may run, as whom, and with which credentials images are pulled."""
    return {
        "node_selector": options.node_selector,
        "tolerations": options.tolerations,
        "pull_secrets": options.pull_secrets,
        "user": options.user,
        "group": options.group,
    }
