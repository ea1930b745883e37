"""A namespace that is ready for runs, and what a doctor's test makes in it."""

import http.server
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.__main__ import main
from pipelines.backends.kubeflow.connection import Cluster
from pipelines.backends.kubeflow.doctor.capacity import needs
from pipelines.backends.kubeflow.doctor.site import Site
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.backends.kubeflow.parameters import pipeline_parameters
from pipelines.recipes import Options, ScaleName, build_plan, load_recipe
from tests.servers.cluster import TestCluster, restricted_pod, wait_for
from tests.servers.minio import MinioServer

SECRET_NAME = "store-keys"
DIGITS = ("linear", "--scale", "digits")
SOUND = {"multi_user": True, "tag_name": "2.17.0", "commit_sha": "unknown"}


@dataclass
class Place:
    """A namespace that is ready for runs, and the command line of a user there."""

    cluster: TestCluster
    namespace: str
    minio: MinioServer
    bucket: str
    options: dict[str, Any]
    capsys: pytest.CaptureFixture[str]
    printed: str = field(default="", repr=False)

    def write_options(self, **changes: Any) -> None:
        """Write the config map of the chart anew."""
        self.options |= changes
        name = "moco-transfer"
        body = {"metadata": {"name": name}, "data": {"cluster.json": json.dumps(self.options)}}
        self.cluster.core.replace_namespaced_config_map(name, self.namespace, body)

    def doctor(self, *arguments: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
        """Run the command; return its exit code, and what was found by check."""
        named = ("--cluster", f"namespace={self.namespace}")
        code = main(["doctor", *arguments, *named, "--json"])
        captured = self.capsys.readouterr()
        self.printed = captured.out + captured.err
        assert self.minio.secret_key not in self.printed
        document = json.loads(captured.out)
        assert document["exit_code"] == code, captured.err
        found: dict[str, list[dict[str, Any]]] = {}
        for one in document["findings"]:
            found.setdefault(one["check"], []).append(one)
        return code, found

    def fault(self, check: str, *arguments: str) -> tuple[int, str, str]:
        """Run the command, which must fail first at a check; return code, words and ways out."""
        code, found = self.doctor(*arguments)
        failures = [one for ones in found.values() for one in ones if one["state"] == "failed"]
        assert failures, found
        assert failures[0]["check"] == check, failures
        assert failures[0]["code"] == code
        return code, failures[0]["words"], "\n".join(failures[0]["way_out"])

    def passes(self, *arguments: str) -> dict[str, list[dict[str, Any]]]:
        """Run the command, which must find nothing that fails; return what it found by check."""
        code, found = self.doctor(*arguments)
        failures = [one for ones in found.values() for one in ones if one["state"] == "failed"]
        assert not failures, "\n".join(one["words"] for one in failures)
        assert code == 0
        return found

    def write_secret(self, **content: str) -> None:
        """Write the store's secret anew."""
        body = {"metadata": {"name": SECRET_NAME}, "stringData": content}
        self.cluster.core.delete_namespaced_secret(SECRET_NAME, self.namespace)
        self.cluster.core.create_namespaced_secret(self.namespace, body)

    def pods(self) -> list[str]:
        """Return the names of the pods that a doctor left."""
        listed = self.cluster.core.list_namespaced_pod(self.namespace)
        return [one.metadata.name for one in listed.items if "doctor" in one.metadata.name]


@contextmanager
def pipeline_server(
    health: dict[str, Any] | str, host: str = "127.0.0.1", runs: bool = True
) -> Iterator[str]:
    """Answer like a pipeline server that is asked for its health, or for runs; give its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = (health if isinstance(health, str) else json.dumps(health)).encode()
            known = self.path == "/apis/v2beta1/healthz"
            listed = self.path.startswith("/apis/v2beta1/runs?")
            self.send_response(200 if known or (listed and runs) else 403 if listed else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body if known else b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer((host, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{host}:{server.server_port}"
        finally:
            server.shutdown()


def use_kubeconfig(environment: pytest.MonkeyPatch, path: Path) -> None:
    """Let this process use a kubeconfig; the client reads the variable when it is imported."""
    environment.setenv("KUBECONFIG", str(path))
    environment.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))


def kubeconfig_with(
    cluster: TestCluster, path: Path, user: dict[str, Any], server: str | None = None
) -> Path:
    """Write a kubeconfig of another user, or of another server."""
    document = yaml.safe_load(cluster.kubeconfig.read_text())
    document["users"][0]["user"] = user
    if server:
        document["clusters"][0]["cluster"]["server"] = server
    path.write_text(yaml.safe_dump(document))
    return path


def pin_image(place: Place) -> None:
    """Name an image by a digest, so that what comes after that check is seen."""
    place.write_options(images={"torch": f"registry.invalid/moco@sha256:{'0' * 64}"})


def write_quota(place: Place, hard: dict[str, str]) -> None:
    """Make a quota, and wait until it counts."""
    core = place.cluster.core
    core.create_namespaced_resource_quota(
        place.namespace, {"metadata": {"name": "small"}, "spec": {"hard": hard}}
    )

    def counts() -> Any:
        return core.read_namespaced_resource_quota("small", place.namespace).status.used

    wait_for("the quota to count", counts)


def make_claim(place: Place, name: str, storage_class: str | None = None) -> None:
    """Make a claim, and wait until it is bound, unless its class waits for a pod."""
    core = place.cluster.core
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    named = {"storageClassName": storage_class} if storage_class else {}
    core.create_namespaced_persistent_volume_claim(
        place.namespace, {"metadata": {"name": name}, "spec": {**spec, **named}}
    )

    def phase() -> Any:
        claim = core.read_namespaced_persistent_volume_claim(name, place.namespace)
        return claim.status.phase == ("Pending" if storage_class else "Bound")

    wait_for(f"the claim {name}", phase)


def fill_claim(place: Place, image: str, claim: str) -> None:
    """Write two classes of two splits into a claim."""
    program = (
        "import pathlib\n"
        "for split in ('train', 'val'):\n"
        "    for name in ('n1', 'n2'):\n"
        "        file = pathlib.Path('/data', split, name, 'x.JPEG')\n"
        "        file.parent.mkdir(parents=True)\n"
        "        file.write_bytes(b'\\xff\\xd8\\xff\\xe0' + b'0' * 64 + b'\\xff\\xd9')\n"
    )
    mount = {"name": "data", "mountPath": "/data"}
    pod = restricted_pod("fill", image, ["python", "-c", program], volumeMounts=[mount])
    pod["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
    code, words = place.cluster.run_pod(place.namespace, pod)
    assert code == 0, words


def roomy_arguments(gpus: int = 8) -> tuple[str, ...]:
    """Make steps small enough for any node but for their GPUs."""
    plan = build_plan(load_recipe("linear"), Options())
    cluster = ClusterOptions(accelerator="any")
    sizes = {"cpus": "1", "memory": "1Gi", "gpus": str(gpus)}
    return tuple(
        word
        for parameter in pipeline_parameters(plan, cluster)
        for kind, value in sizes.items()
        if parameter.name.startswith(f"{kind}_")
        for word in ("--parameter", f"{parameter.name}={value}")
    )


def largest_stage(scale: ScaleName = "full") -> str:
    """Return the stage that asks for most."""
    plan = build_plan(load_recipe("linear"), Options(scale=scale))
    return needs(Site(Cluster(ClusterOptions()), plan))[0].stage


@contextmanager
def gpus(cluster: TestCluster, count: int) -> Iterator[str]:
    """Let the first node have GPUs of a kind of our own, as a device plugin would say it."""
    name = f"moco-test.example/{secrets.token_hex(4)}"
    path = f"/status/capacity/{name.replace('/', '~1')}"
    node = cluster.core.list_node().items[0].metadata.name
    patch: Callable[..., Any] = cluster.core.patch_node_status
    patch(node, [{"op": "add", "path": path, "value": str(count)}])
    try:

        def has() -> bool:
            return name in cluster.core.read_node(node).status.allocatable

        wait_for(f"{name} on {node}", has)
        yield name
    finally:
        patch(node, [{"op": "remove", "path": path}])
