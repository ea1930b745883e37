"""Pods that come to grief, each in a way of its own, and what a user must read of it."""

from dataclasses import dataclass, field
from typing import Any

from tests.servers.cluster import restricted_pod

SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
NOWHERE = "registry.invalid/nobody/none:1"  # a name that no resolver knows


@dataclass(frozen=True)
class Trouble:
    """A pod that waits or fails, and the words that must say why."""

    words: str  # a regular expression
    script: str = "sleep 600"
    container: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)

    def pod(self, name: str, image: str) -> dict[str, Any]:
        """Write the pod."""
        command = ["sh", "-c", self.script]
        container: dict[str, Any] = {
            "resources": {"limits": {"cpu": "50m", "memory": "32Mi"}}
        } | self.container
        pod: dict[str, Any] = restricted_pod(name, image, command)
        pod["spec"]["containers"][0] |= container
        pod["spec"] |= {"terminationGracePeriodSeconds": 1} | self.spec
        for preparing in pod["spec"].get("initContainers", []):
            preparing |= {"image": image, "imagePullPolicy": "IfNotPresent"}
        return pod


def _limits(**limits: str) -> dict[str, Any]:
    return {"resources": {"limits": {"cpu": "50m", "memory": "32Mi"} | limits}}


def _volume(**source: Any) -> dict[str, Any]:
    return {"volumes": [{"name": "it", **source}]}


_MOUNTED = {"volumeMounts": [{"name": "it", "mountPath": "/it"}]}

WAITING = {
    "missing-image": Trouble(
        rf"the image {NOWHERE} cannot be pulled: .+", container={"image": NOWHERE}
    ),
    "bad-image-name": Trouble(
        r"the image Upper/Case:1 cannot be pulled: .*must be lowercase",
        container={"image": "Upper/Case:1"},
    ),
    "no-gpu": Trouble(
        r"no node can take it: .*Insufficient nvidia.com/gpu$",
        container=_limits(**{"nvidia.com/gpu": "64"}),
    ),
    "no-memory": Trouble(
        r"no node can take it: .*Insufficient memory$", container=_limits(memory="4000Gi")
    ),
    "no-such-node": Trouble(
        r"no node can take it: .*didn't match .*node affinity/selector$",
        spec={"nodeSelector": {"accelerator": "none-such"}},
    ),
    "no-claim": Trouble(
        r'no node can take it: .*persistentvolumeclaim "coco" not found',
        spec=_volume(persistentVolumeClaim={"claimName": "coco"}),
    ),
    "no-secret": Trouble(
        r'its container cannot be made: secret "store" not found',
        container={
            "env": [
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "store", "key": "accesskey"}}}
            ]
        },
    ),
    "no-config-map": Trouble(
        r'its volumes or its network are not ready: .*configmap "certificates" not found',
        container=_MOUNTED,
        spec=_volume(configMap={"name": "certificates"}),
    ),
    "held-back": Trouble(
        r"held back by kueue.x-k8s.io/admission \(Kueue: its queue has no room yet\)",
        spec={"schedulingGates": [{"name": "kueue.x-k8s.io/admission"}]},
    ),
}

FAILED = {
    "out-of-memory": Trouble(r"^the memory limit of 32Mi was exceeded$", "tail /dev/zero"),
    "child-out-of-memory": Trouble(
        r"^the memory limit of 32Mi was exceeded$", "tail /dev/zero; exit 3"
    ),
    "evicted": Trouble(
        r'^the pod was ended \(Evicted\): .*exceeds the limit "8Mi"',
        "dd if=/dev/zero of=/it/file bs=1048576 count=20; sleep 600",
        container=_MOUNTED,
        spec=_volume(emptyDir={"sizeLimit": "8Mi"}),
    ),
    "too-long": Trouble(
        r"^the pod was ended \(DeadlineExceeded\): .+", spec={"activeDeadlineSeconds": 5}
    ),
    "no-program": Trouble(
        r"^container main: .*/bin/none-such", container={"command": ["/bin/none-such"]}
    ),
    "no-entry": Trouble(
        r"^container preparing failed with exit code 4$",
        spec={
            "initContainers": [
                {
                    "name": "preparing",
                    "command": ["sh", "-c", "exit 4"],
                    "securityContext": SECURITY,
                }
            ]
        },
    ),
    "killed": Trouble(r"^ended by SIGKILL; out of memory\?$", "exit 137"),
    "own-words": Trouble(r"^$", "echo the loss is NaN >&2; exit 70"),
}
