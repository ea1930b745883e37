"""Runs a short pod in the namespace of the runs, to see what their pods will see."""

import contextlib
import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.core.errors import ExitCode, MocoError
from pipelines.backends.kfp import CERTIFICATES, SCRATCH, USER_ENVIRONMENT
from pipelines.cluster.connection import TIMEOUT
from pipelines.cluster.doctor.findings import FaultError
from pipelines.cluster.doctor.site import Site
from pipelines.cluster.pods import (
    MAIN,
    exit_code,
    sorted_events,
    state_of,
    waits_for_ever,
    why_failed,
    why_waiting,
)

# What makes the chart's network policy treat it like the pods of steps.
LABELS = {"moco-transfer/stage": "doctor"}
POLL_SECONDS = 1.0
SAID = 300  # characters
LONGEST_LOG = 8 << 20  # bytes
GRACE_SECONDS = 30  # the cluster ends a pod that nobody ended
UNMADE = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


@dataclass(frozen=True)
class Task:
    """What a pod is to do.

    Attributes:
        image: Reference of its image.
        argv: Its command line.
        store: Whether it gets what reaching the store takes.
        claims: Persistent volume claims by the folder where they are mounted, read-only.
    """

    image: str
    argv: Sequence[str]
    store: bool = False
    claims: Mapping[str, str] = field(default_factory=dict)


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
                found = json.loads(text)
                if isinstance(found, dict) and key in found:
                    return found
        return None

    def words(self) -> str:
        """Describe the end of a pod that gave no answer."""
        said = self.log.strip()[-SAID:] or "it says nothing"
        return f"exit code {self.code}{f', {self.why}' if self.why else ''}: {said}"


def run_pod(site: Site, task: Task) -> Ended:
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


def _create(site: Site, name: str, task: Task) -> None:
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


def _until_ended(site: Site, name: str, task: Task) -> Any:
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


def _raise_if_stuck(site: Site, pod: Any, task: Task) -> None:
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
    as_json = site.cluster.kubernetes.sanitize_for_serialization
    events: list[Any] = []
    with contextlib.suppress(MocoError):
        listed = site.ask(
            "list events",
            site.cluster.core.list_namespaced_event,
            site.namespace,
            field_selector=f"involvedObject.name={pod.metadata.name}",
        )
        events = sorted_events(as_json(listed.items))
    return why_waiting(as_json(pod), events)


def _manifest(site: Site, name: str, task: Task) -> Any:
    """Write a pod that passes *restricted*, placed and named like those of the runs."""
    from kubernetes import client

    options = site.options
    volumes, mounts = _volumes(site, task)
    container = client.V1Container(
        name=MAIN,
        image=task.image,
        command=list(task.argv),
        env=list(_environment(site, task)),
        resources=client.V1ResourceRequirements(
            requests={"cpu": "100m", "memory": "256Mi"}, limits={"cpu": "1", "memory": "1Gi"}
        ),
        security_context=client.V1SecurityContext(
            allow_privilege_escalation=False,
            read_only_root_filesystem=True,
            capabilities=client.V1Capabilities(drop=["ALL"]),
        ),
        volume_mounts=mounts,
    )
    return client.V1Pod(
        metadata=client.V1ObjectMeta(name=name, labels=LABELS),
        spec=client.V1PodSpec(
            containers=[container],
            volumes=volumes,
            restart_policy="Never",
            active_deadline_seconds=int(site.pod_seconds) + GRACE_SECONDS,
            automount_service_account_token=False,
            enable_service_links=False,
            service_account_name=options.service_account,
            image_pull_secrets=[
                client.V1LocalObjectReference(name=secret) for secret in options.pull_secrets
            ],
            node_selector=dict(options.node_selector),
            tolerations=[
                client.V1Toleration(**toleration.model_dump()) for toleration in options.tolerations
            ],
            security_context=client.V1PodSecurityContext(
                run_as_non_root=True,
                run_as_user=options.user,
                run_as_group=options.group,
                seccomp_profile=client.V1SeccompProfile(type="RuntimeDefault"),
            ),
        ),
    )


def _environment(site: Site, task: Task) -> Iterator[Any]:
    """Yield variables; the credentials of the store go by reference only."""
    from kubernetes import client

    options = site.options
    yield from (client.V1EnvVar(name=name, value=text) for name, text in USER_ENVIRONMENT.items())
    if not task.store:
        return
    plain = {
        "MOCO_S3_ENDPOINT": options.store_endpoint,
        "AWS_REGION": options.store_region,
        "AWS_CA_BUNDLE": f"{CERTIFICATES}/ca.crt" if options.store_ca else None,
    }
    yield from (client.V1EnvVar(name=name, value=text) for name, text in plain.items() if text)
    secret = site.values().get("store_secret") or options.store_secret
    for name, key in (
        ("AWS_ACCESS_KEY_ID", options.access_key_field),
        ("AWS_SECRET_ACCESS_KEY", options.secret_key_field),
    ):
        selector = client.V1SecretKeySelector(name=secret, key=key)
        yield client.V1EnvVar(name=name, value_from=client.V1EnvVarSource(secret_key_ref=selector))


def _volumes(site: Site, task: Task) -> tuple[list[Any], list[Any]]:
    """Return the volumes of a pod, and where they are mounted."""
    from kubernetes import client

    volumes = [client.V1Volume(name="scratch", empty_dir=client.V1EmptyDirVolumeSource())]
    mounts = [client.V1VolumeMount(name="scratch", mount_path=SCRATCH)]
    if task.store and site.options.store_ca:
        source = client.V1ConfigMapVolumeSource(name=site.options.store_ca)
        volumes.append(client.V1Volume(name="certificates", config_map=source))
        mounts.append(client.V1VolumeMount(name="certificates", mount_path=CERTIFICATES))
    for number, (folder, claim) in enumerate(task.claims.items()):
        held = client.V1PersistentVolumeClaimVolumeSource(claim_name=claim)
        volumes.append(client.V1Volume(name=f"data-{number}", persistent_volume_claim=held))
        mounts.append(
            client.V1VolumeMount(name=f"data-{number}", mount_path=folder, read_only=True)
        )
    return volumes, mounts
