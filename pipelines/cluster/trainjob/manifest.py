"""Writes the TrainJob of a stage's command line."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.cluster.trainjob import TrainJobConfig

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
JOB = "node"  # of the runtime: its replicated job, and the container in it
LONGEST_NAME = 48  # a longer one is accepted, and never starts
SPEC = "moco-transfer/spec"
"""Annotation with the digest of what was asked for: a TrainJob of another is not ours to follow."""

Manifest = dict[str, Any]


def job_name(step: str, outputs: Mapping[str, str]) -> str:
    """Name the TrainJob of a step after where its artifacts go.

    A pod of the step that is started again has the same URLs, and so finds the TrainJob; a
    new run has others.
    """
    digest = hashlib.sha256(json.dumps(outputs, sort_keys=True).encode()).hexdigest()[:10]
    words = re.sub("[^a-z0-9]+", "-", step.lower()).strip("-")
    if not words[:1].isalpha():
        words = f"step-{words}"
    return f"{words[: LONGEST_NAME - len(digest) - 1].rstrip('-')}-{digest}"


def train_job(
    config: TrainJobConfig,
    command: Sequence[str],
    *,
    name: str,
    labels: Mapping[str, str],
    owner: Mapping[str, str] | None,
) -> Manifest:
    """Write a TrainJob whose pods all run one command.

    Args:
        config: What it asks of the cluster.
        command: The stage's.
        name: Of the TrainJob.
        labels: Of the TrainJob, beside those of the config.
        owner: Reference to the pod that it goes with.
    """
    spec = _spec(config, command)
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
    metadata: Manifest = {
        "name": name,
        "labels": {**labels, **config.labels},
        "annotations": {SPEC: digest},
    }
    if owner:
        metadata["ownerReferences"] = [dict(owner)]
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": metadata,
        "spec": spec,
    }


def _spec(config: TrainJobConfig, command: Sequence[str]) -> Manifest:
    sizes = {"cpu": config.cpus, "memory": config.memory}
    if config.gpus:
        sizes[config.accelerator] = str(config.gpus)
    spec: Manifest = {
        "runtimeRef": {
            "apiGroup": GROUP,
            "kind": "TrainingRuntime",
            "name": config.runtime,
        },
        "trainer": {
            "image": config.image,
            "command": list(command),
            "env": _variables(config),
            "numNodes": config.nodes,
            # Where limits stand without requests, Trainer makes it 1 without a word.
            "numProcPerNode": config.processes,
            "resourcesPerNode": {
                "limits": sizes,
                "requests": {**sizes, "cpu": config.sure_cpus or config.cpus},
            },
        },
        "podSpecOverrides": [_overrides(config)],
    }
    if config.labels:
        spec["labels"] = config.labels  # of the JobSet: what schedules it may look there
    return spec


def _variables(config: TrainJobConfig) -> list[Manifest]:
    plain = {"MOCO_IMAGE": config.image, **config.environment}
    return [
        *({"name": name, "value": value} for name, value in plain.items()),
        *(
            {
                "name": name,
                "valueFrom": {"secretKeyRef": {"name": field.secret, "key": field.key}},
            }
            for name, field in config.secrets.items()
        ),
    ]


def _overrides(config: TrainJobConfig) -> Manifest:
    """Add to the runtime's pods what differs from stage to stage."""
    volumes: list[Manifest] = []
    mounts: list[Manifest] = []
    if config.shared_memory:
        memory = {"medium": "Memory", "sizeLimit": f"{config.shared_memory}Gi"}
        volumes.append({"name": "shared-memory", "emptyDir": memory})
        mounts.append({"name": "shared-memory", "mountPath": "/dev/shm"})  # noqa: S108 - its own
    for number, (path, claim) in enumerate(config.claims.items()):
        source = {"claimName": claim, "readOnly": True}
        volumes.append({"name": f"data-{number}", "persistentVolumeClaim": source})
        mounts.append({"name": f"data-{number}", "mountPath": path, "readOnly": True})
    for number, (path, config_map) in enumerate(config.config_maps.items()):
        volumes.append({"name": f"config-{number}", "configMap": {"name": config_map}})
        mounts.append({"name": f"config-{number}", "mountPath": path, "readOnly": True})
    overrides: Manifest = {"targetJobs": [{"name": JOB}]}
    if volumes:
        overrides |= {
            "volumes": volumes,
            "containers": [{"name": JOB, "volumeMounts": mounts}],
        }
    if config.node_selector:
        overrides["nodeSelector"] = config.node_selector
    if config.tolerations:
        overrides["tolerations"] = [
            taint.model_dump(exclude_none=True) for taint in config.tolerations
        ]
    return overrides
