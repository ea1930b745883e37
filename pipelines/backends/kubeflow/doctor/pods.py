"""Runs a short pod in the namespace of the runs, to see what their pods will see."""

import contextlib
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.core.errors import ExitCode, MocoError
from pipelines.backends.kubeflow.connection import TIMEOUT
from pipelines.backends.kubeflow.doctor.findings import FaultError
from pipelines.backends.kubeflow.doctor.site import Site
from pipelines.backends.kubeflow.pod import (
    pod_manifest,
    trial_pod,
)
from pipelines.backends.kubeflow.pods import (
    exit_code,
    state_of,
    waits_for_ever,
    why_failed,
    why_waiting,
)

POLL_SECONDS = 1.0
SAID = 300  # characters
LONGEST_LOG = 8 << 20  # bytes
GRACE_SECONDS = 30  # the cluster ends a pod that nobody ended
UNMADE = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


@dataclass(frozen=True)
class PodTask:
    """What a pod is to look at.

    Attributes:
        image: Reference of its image.
        argv: Its command line.
        store: Whether it gets what reaching the store takes.
        claims: Persistent volume claims by the folder where they are mounted, read-only.
        labels: More labels.
    """

    image: str
    argv: Sequence[str]
    store: bool = False
    claims: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """How a pod ended.

    Attributes:
        code: The exit code.
        log: All that it printed.
        why: What the platform says of a failure.
    """

    code: int
    log: str
    why: str = ""

    def answer(self, key: str) -> dict[str, Any] | None:
        """Return the JSON object that it printed, whole or in the last line.

        Args:
            key: What the object must have; another one is no answer.
        """
        for text in (self.log, self.log.strip().rpartition("\n")[2]):
            with contextlib.suppress(ValueError):
                answer = json.loads(text)
                if isinstance(answer, dict) and key in answer:
                    return answer
        return None

    def words(self) -> str:
        """Describe the end of a pod that gave no answer."""
        said = self.log.strip()[-SAID:] or "it says nothing"
        return f"exit code {self.code}{f', {self.why}' if self.why else ''}: {said}"


def run_pod(site: Site, task: PodTask) -> Ended:
    """Run a pod to its end, and delete it however that goes.

    Raises:
        FaultError: if it is refused, cannot start, or does not end in time.
        ClusterError: if the cluster does not answer.
    """
    name = f"moco-doctor-{secrets.token_hex(4)}"
    core, namespace = site.cluster.core, site.namespace
    try:
        _create(site, name, task)
        pod = _until_ended(site, name, task)
        answer = site.ask(
            f"read the log of pod {name}",
            core.read_namespaced_pod_log,
            name,
            namespace,
            limit_bytes=LONGEST_LOG,
            _preload_content=False,  # the client would take a log of JSON for an object
        )
        log = answer.data.decode(errors="replace")
        document = site.cluster.kubernetes.sanitize_for_serialization(pod)
        code, why = exit_code(document), why_failed(document)
        if code is None:
            raise FaultError(f"the pod {name} was stopped: {why}")
        return Ended(code, log, why)
    finally:
        with contextlib.suppress(MocoError):
            site.ask(
                f"delete pod {name}",
                core.delete_namespaced_pod,
                name,
                namespace,
                grace_period_seconds=0,
            )


def _create(site: Site, name: str, task: PodTask) -> None:
    from kubernetes.client import ApiException

    with site.cluster.asking(f"start a pod in {site.namespace}"):
        try:
            site.cluster.core.create_namespaced_pod(
                site.namespace, _manifest(site, name, task), _request_timeout=TIMEOUT
            )
        except ApiException as error:
            if error.status not in (403, 422):
                raise
            words = json.loads(error.body).get("message", error.reason)
            permission = "cannot create resource" in words
            raise FaultError(
                f"a pod is refused in namespace {site.namespace}: {words}",
                f"kubectl describe namespace {site.namespace}",
                code=ExitCode.NO_PERMISSION if permission else ExitCode.LOST_CLUSTER,
            ) from None


def _until_ended(site: Site, name: str, task: PodTask) -> Any:
    """Wait for a pod's end, and return it.

    Raises:
        FaultError: as soon as it is clear that it will not start, and when the time is over.
    """
    deadline = time.monotonic() + site.pod_seconds
    while True:
        pod = site.ask(
            f"look at pod {name}", site.cluster.core.read_namespaced_pod, name, site.namespace
        )
        if pod.status.phase in ("Succeeded", "Failed"):
            return pod
        _raise_if_stuck(site, pod, task)
        if time.monotonic() > deadline:
            raise FaultError(
                f"the pod of image {task.image} did not end in {site.pod_seconds:.0f} s: "
                f"{_why_late(site, pod)}",
                "--wait SECONDS",
                f"kubectl get events --namespace {site.namespace}",
            )
        time.sleep(POLL_SECONDS)


def _raise_if_stuck(site: Site, pod: Any, task: PodTask) -> None:
    document = site.cluster.kubernetes.sanitize_for_serialization(pod)
    if waits_for_ever(document):
        raise FaultError(
            why_waiting(document),
            "push it, and name its digest: --cluster images.NAME=REGISTRY/NAME@sha256:...",
            "--cluster 'pull_secrets=[\"SECRET\"]', if the registry asks who pulls",
        )
    if state_of(document)[1].get("reason") in UNMADE:
        raise FaultError(
            f"a pod of image {task.image} does not start: {why_waiting(document)}",
            f"kubectl get secrets,configmaps --namespace {site.namespace}",
        )


def _why_late(site: Site, pod: Any) -> str:
    if pod.status.phase == "Running":
        return "it is still running"
    document = site.cluster.kubernetes.sanitize_for_serialization(pod)
    return why_waiting(document, site.cluster.events(site.namespace, pod.metadata.name))


def _manifest(site: Site, name: str, task: PodTask) -> dict[str, Any]:
    """Write a pod that is placed and named like those of the runs."""
    options = site.options
    secret = site.values().get("store_secret") or options.store_secret
    pod = trial_pod(
        task.image,
        options,
        secret=secret if task.store else None,
        claims=task.claims,
        labels=task.labels,
    )
    return pod_manifest(
        pod,
        name,
        task.argv,
        seconds=int(site.pod_seconds) + GRACE_SECONDS,
        service_account=options.service_account,
    )
