"""Runs a compiled pipeline's steps as pods of a real cluster, without Kubeflow.

The command, image, variables, volumes, sizes and security context of each pod are those that the
compiled file holds; what Kubeflow's launcher would copy into the pod and out of it, the stage
fetches and uploads itself: a port's path is replaced by the artifact's URL.
"""

import time
from dataclasses import dataclass, field
from typing import Any

from kubernetes import client

from tests.pipelines.launcher import Document, Launcher, TaskFailed, placeholders, replaced

POLL = 0.5  # seconds


@dataclass
class PodLauncher(Launcher):
    """One run of a compiled pipeline on a cluster.

    Attributes:
        core: The cluster.
        namespace: Of the pods; the secrets that they name are there.
    """

    core: client.CoreV1Api = field(kw_only=True)
    namespace: str = field(kw_only=True)

    def run_task(self, task: str, timeout: float = 600) -> Any:
        """Run a task's pod to its end.

        Raises:
            TaskFailed: with the end of what it printed.
        """
        name = f"{task}-{self.ids.setdefault(task, self.run_id)[:8]}"
        self.core.create_namespaced_pod(self.namespace, self.manifest(task, name))
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            pod = self.core.read_namespaced_pod(name, self.namespace)
            if pod.status.phase in ("Succeeded", "Failed"):
                break
            time.sleep(POLL)
        words = self._logs(name)
        if pod.status.phase != "Succeeded":
            raise TaskFailed(f"{task} is {pod.status.phase} after {timeout} s: {words[-4000:]}")
        self.core.delete_namespaced_pod(name, self.namespace, grace_period_seconds=0)
        return pod

    def manifest(self, task: str, name: str) -> Document:
        """Write the pod that Kubeflow would make of a task, less its own containers."""
        container = self._executor(task)["container"]
        platform = self.platforms.get(self._component(task)["executorLabel"], {})
        executor_input = self._executor_input(task, self.work)
        words = placeholders(executor_input, self.work)
        # A folder of the pod becomes the artifact's own place in the store.
        words = {
            word: words[word.replace("path}}", "uri}}")] if word.endswith(".path}}") else value
            for word, value in words.items()
        }
        sizes = self._sizes(task)
        limits = {
            name: replaced(container["resources"][f"resource{name.title()}Limit"], sizes)
            for name in ("cpu", "memory")
        }
        identity = {
            k: int(v) for k, v in platform["securityContext"].items() if k != "runAsNonRoot"
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": platform["podMetadata"]["labels"]},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "containers": [
                    {
                        "name": "main",
                        "image": replaced(container["image"], words),
                        "imagePullPolicy": "IfNotPresent",
                        "command": [replaced(w, words) for w in container["command"]],
                        # The executor input describes copies that nobody makes here.
                        "args": [replaced(w, words) for w in container["args"][:-2]],
                        "env": [*container["env"], *self._environment(platform)],
                        "resources": {"limits": limits, "requests": {**limits, "cpu": "100m"}},
                        "securityContext": {
                            **identity,
                            "runAsNonRoot": True,
                            "allowPrivilegeEscalation": False,
                            "capabilities": {"drop": ["ALL"]},
                            "seccompProfile": {"type": "RuntimeDefault"},
                        },
                        "volumeMounts": [
                            {"name": one["volumeName"], "mountPath": one["mountPath"]}
                            for one in platform["emptyDirMounts"]
                        ],
                    }
                ],
                "volumes": [
                    {"name": one["volumeName"], "emptyDir": _empty_dir(one)}
                    for one in platform["emptyDirMounts"]
                ],
            },
        }

    def _environment(self, platform: Document) -> list[Document]:
        """Give every pod the store: here each fetches its inputs itself."""
        given = [one["name"] for one in platform.get("env", ())]
        secret = self.values["store_secret"]
        fields = {"AWS_ACCESS_KEY_ID": "accesskey", "AWS_SECRET_ACCESS_KEY": "secretkey"}
        return [
            *(
                {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
                for name, key in fields.items()
            ),
            *(
                {"name": name, "value": value}
                for name, value in self.environment.items()
                if name not in given
            ),
        ]

    def _sizes(self, task: str) -> dict[str, str]:
        """Resolve the parameters that only the sizes of a task's pod name."""
        given = self._task(task)["inputs"]["parameters"]
        return {
            f"{{{{$.inputs.parameters['{name}']}}}}": self.values[one["componentInputParameter"]]
            for name, one in given.items()
            if "componentInputParameter" in one
        }

    def _logs(self, name: str) -> str:
        return str(self.core.read_namespaced_pod_log(name, self.namespace))


def _empty_dir(mount: Document) -> Document:
    sizes = {"medium": mount.get("medium"), "sizeLimit": mount.get("sizeLimit")}
    return {key: value for key, value in sizes.items() if value}
