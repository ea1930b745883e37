"""A real cluster for the tests: a throw-away one whose administrator's kubeconfig is given."""

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

POD_SECONDS = 180
POLL_SECONDS = 0.5
USER = 1000  # of the project's images

_KUBECONFIG = "MOCO_TEST_KUBECONFIG"
_IMAGE = "MOCO_TEST_IMAGE"


@dataclass(frozen=True)
class TestCluster:
    """A cluster that tests may change, as its administrator."""

    __test__ = False

    kubeconfig: Path

    @cached_property
    def api(self) -> Any:
        """The connection: a `kubernetes.client.ApiClient`."""
        from kubernetes import config

        return config.new_client_from_config(str(self.kubeconfig))

    @cached_property
    def core(self) -> Any:
        """Pods, secrets, claims: a `kubernetes.client.CoreV1Api`."""
        from kubernetes import client

        return client.CoreV1Api(self.api)

    def run_pod(self, namespace: str, pod: Mapping[str, Any]) -> tuple[int, str]:
        """Create a pod of one container, and return its exit code and log when it has ended."""
        name = self.core.create_namespaced_pod(namespace, dict(pod)).metadata.name

        def ended() -> Any:
            status = self.core.read_namespaced_pod(name, namespace).status
            return status.phase in ("Succeeded", "Failed") and status

        status = wait_for(f"pod {name} to end", ended)
        ending = status.container_statuses[0].state.terminated
        return int(ending.exit_code), str(self.core.read_namespaced_pod_log(name, namespace))


def wait_for(what: str, condition: Callable[[], Any], seconds: float = POD_SECONDS) -> Any:
    """Ask until the answer is true, and return it; fail when the time is over."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(POLL_SECONDS)
    return answer


def restricted_pod(
    name: str, image: str, command: list[str], **container: Any
) -> dict[str, dict[str, Any]]:
    """Write a pod of one container that passes the Pod Security Standard *restricted*."""
    return {
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "main",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": command,
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    **container,
                }
            ],
        },
    }


@pytest.fixture(scope="session")
def cluster() -> TestCluster:
    """Give the cluster of the environment, or skip with the reason."""
    kubeconfig = os.environ.get(_KUBECONFIG)
    if not kubeconfig:
        pytest.skip(f"no cluster: {_KUBECONFIG} names no administrator's kubeconfig")
    return TestCluster(Path(kubeconfig))


@pytest.fixture
def namespace(cluster: TestCluster) -> Iterator[str]:
    """Make an empty namespace that enforces *restricted*; it is deleted at the end."""
    from kubernetes.client import ApiException

    name = f"moco-test-{secrets.token_hex(4)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.core.create_namespace({"metadata": {"name": name, "labels": labels}})

    def has_account() -> bool:
        with suppress(ApiException):
            cluster.core.read_namespaced_service_account("default", name)
            return True
        return False

    try:
        wait_for(f"the default account of {name}", has_account)
        yield name
    finally:
        cluster.core.delete_namespace(name)


@pytest.fixture(scope="session")
def pod_image() -> str:
    """Give the reference of the project's image that the cluster's nodes hold, or skip."""
    image = os.environ.get(_IMAGE)
    if not image:
        pytest.skip(f"no image: {_IMAGE} names no image of the project on the cluster's nodes")
    return image
