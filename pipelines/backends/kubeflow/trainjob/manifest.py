"""Writes the TrainJob of a stage's command line."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.backends.kubeflow.pod import Pod, tolerations, variables, volumes
from pipelines.backends.kubeflow.trainjob import TrainJobConfig

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
    pod = config.pod
    spec: Manifest = {
        "runtimeRef": {
            "apiGroup": GROUP,
            "kind": "TrainingRuntime",
            "name": config.runtime,
        },
        "trainer": {
            "image": pod.image,
            "command": list(command),
            "env": [{"name": "MOCO_IMAGE", "value": pod.image}, *variables(pod)],
            "numNodes": config.nodes,
            # Where limits stand without requests, Trainer makes it 1 without a word.
            "numProcPerNode": config.processes,
            "resourcesPerNode": {
                "limits": pod.limits(),
                "requests": pod.requests(),
            },
        },
        "podSpecOverrides": [_overrides(pod)],
    }
    if config.labels:
        spec["labels"] = config.labels  # of the JobSet: what schedules it may look there
    return spec


def _overrides(pod: Pod) -> Manifest:
    """Add to the runtime's pods what differs from stage to stage."""
    mounted = list(volumes(pod))
    overrides: Manifest = {"targetJobs": [{"name": JOB}]}
    if mounted:
        mounts = [mount for _, mount in mounted]
        overrides |= {
            "volumes": [volume for volume, _ in mounted],
            "containers": [{"name": JOB, "volumeMounts": mounts}],
        }
    if pod.node_selector:
        overrides["nodeSelector"] = pod.node_selector
    if pod.tolerations:
        overrides["tolerations"] = tolerations(pod)
    return overrides
