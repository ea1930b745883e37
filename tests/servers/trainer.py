"""Kubeflow Trainer and JobSet for the test cluster: their own manifests, controllers built with Go.

`python -m tests.servers.trainer build` builds the controllers beforehand. Nodes get their images
by the command in MOCO_TEST_LOAD, which is given the path of a tar as `docker save` writes it.
"""

import fcntl
import hashlib
import io
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers.cluster import TestCluster
from tests.servers.go import BINARIES, BUILD_SECONDS, NoServerError

READY_SECONDS = 300

_LOAD = "MOCO_TEST_LOAD"


@dataclass(frozen=True)
class Controller:
    """A controller as its public Go module has it.

    Attributes:
        name: Of the binary here, and of the image.
        module: Module and version.
        package: Of its program, in the module.
        manifests: Folders of the module that kustomize builds.
        definitions: Folder of the module with the kinds of objects that it brings.
        namespace: That it runs in.
        deployment: Its name there.
        kustomization: What the manifests lack.
    """

    name: str
    module: str
    package: str
    manifests: tuple[str, ...]
    definitions: str
    namespace: str
    deployment: str
    kustomization: Mapping[str, Any]

    @property
    def version(self) -> str:
        """The version of the module."""
        return self.module.partition("@")[2]

    @property
    def image(self) -> str:
        """Reference of the image; no registry has it."""
        return f"moco-test.local/{self.name}:{self.version}"


JOBSET = Controller(
    name="jobset-controller",
    module="sigs.k8s.io/jobset@v0.8.2",
    package=".",
    manifests=("config/default",),
    definitions="config/components/crd/bases",
    namespace="jobset-system",
    deployment="jobset-controller-manager",
    kustomization={},
)
_CERTIFICATE = "kubeflow-trainer-webhook-cert"
TRAINER = Controller(
    name="trainer-controller",
    module="github.com/kubeflow/trainer/v2@v2.0.0",
    package="./cmd/trainer-controller-manager",
    manifests=tuple(f"manifests/base/{part}" for part in ("crds", "manager", "rbac", "webhook")),
    definitions="manifests/base/crds",
    namespace="kubeflow-system",
    deployment="kubeflow-trainer-controller-manager",
    kustomization={
        # As the module's own overlay has them, which also fetches JobSet from elsewhere.
        "namespace": "kubeflow-system",
        "secretGenerator": [
            {
                "name": _CERTIFICATE,
                "namespace": "kubeflow-system",
                "options": {"disableNameSuffixHash": True},
            }
        ],
    },
)


@pytest.fixture(scope="session")
def trainer(cluster: TestCluster) -> TestCluster:
    """Give a cluster that runs Kubeflow Trainer, or skip with the reason; it stays there."""
    try:
        for controller in (JOBSET, TRAINER):
            install(cluster, controller)
    except NoServerError as reason:
        pytest.skip(str(reason))
    return cluster


def install(cluster: TestCluster, controller: Controller) -> None:
    """Bring a controller into a cluster, unless it runs there, and wait until it is ready.

    Raises:
        NoServerError: when something that is needed is missing.
    """
    if not _is_ready(cluster, controller):
        _load(controller)
        _apply(cluster, controller)
        deadline = time.monotonic() + READY_SECONDS
        while not _is_ready(cluster, controller):
            if time.monotonic() > deadline:
                raise NoServerError(f"{controller.deployment} was not ready in {READY_SECONDS} s")
            time.sleep(1)


def define(cluster: TestCluster, controller: Controller) -> None:
    """Teach a cluster the kinds of a controller's objects, unless it knows them, without it.

    Raises:
        NoServerError: when their definitions cannot be had.
    """
    folder = module_folder(controller.module) / controller.definitions
    files = sorted(folder.glob("*_*.yaml"))  # GROUP_KIND.yaml
    names = [f"crd/{file.stem.partition('_')[2]}.{file.stem.partition('_')[0]}" for file in files]
    if not _kubectl(cluster, "get", "--ignore-not-found", "--output=name", *names):
        _kubectl(cluster, "apply", "--server-side", *(f"--filename={file}" for file in files))
    _kubectl(cluster, "wait", "--for=condition=established", "--timeout=60s", *names)


def build(controller: Controller) -> Path:
    """Build a controller into the cache; of several processes one builds.

    Raises:
        NoServerError: when Go is missing or the build fails.
    """
    BINARIES.mkdir(parents=True, exist_ok=True)
    binary = BINARIES / f"{controller.name}-{controller.version}"
    with (BINARIES / f".{controller.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.is_file():
            # Where the module lies, because `go install` would ask for a list of its versions.
            _go(
                ["build", "-trimpath", "-o", f"{binary}.unfinished", controller.package],
                folder=module_folder(controller.module),
            )
            Path(f"{binary}.unfinished").rename(binary)
    return binary


def module_folder(module: str) -> Path:
    """Return where Go keeps the sources of a public module, fetched if need be.

    Raises:
        NoServerError: when it cannot be had.
    """
    return Path(json.loads(_go(["mod", "download", "-json", module]))["Dir"])


def _go(arguments: list[str], folder: Path | None = None) -> str:
    go = shutil.which("go")
    if not go:
        raise NoServerError("no Kubeflow Trainer: install Go, which builds it from its module")
    nice = shutil.which("nice")
    done = subprocess.run(
        [*([nice, "-n", "10"] if nice else []), go, *arguments],
        cwd=folder or Path.home(),
        env={**os.environ, "CGO_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    if done.returncode:
        raise NoServerError(f"go {' '.join(arguments)}: {(done.stderr or done.stdout)[-500:]}")
    return done.stdout


def _load(controller: Controller) -> None:
    """Give the cluster's nodes an image of the binary alone."""
    command = os.environ.get(_LOAD)
    if not command:
        raise NoServerError(f"no Kubeflow Trainer: {_LOAD} names no command that loads an image")
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "image.tar")
        _pack(build(controller), controller.image, image)
        done = subprocess.run(
            [*shlex.split(command), str(image)],
            capture_output=True,
            text=True,
            timeout=READY_SECONDS,
            check=False,
        )
    if done.returncode:
        raise NoServerError(f"{command} did not load {controller.image}: {done.stderr[-500:]}")


def _pack(binary: Path, image: str, path: Path) -> None:
    """Write an image of one layer with the binary as `/manager`, as `docker save` does."""
    layer = path.with_name("layer.tar")
    with tarfile.open(layer, "w") as tar:
        member = tar.gettarinfo(binary, "manager")
        member.uid = member.gid = 0
        member.mode = 0o755
        with binary.open("rb") as file:
            tar.addfile(member, file)
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": ["/manager"], "User": "65532:65532"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [image], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        for name, document in (("config.json", config), ("manifest.json", manifest)):
            content = json.dumps(document).encode()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        tar.add(layer, "layer.tar")


def _apply(cluster: TestCluster, controller: Controller) -> None:
    """Apply the module's own manifests with our image in place of the published one."""
    module = module_folder(controller.module)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bases = [os.path.relpath(module / part, folder.resolve()) for part in controller.manifests]
        kustomization = {
            "resources": bases,
            **controller.kustomization,
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        rendered = _kubectl(cluster, "kustomize", str(folder))
        documents = [one for one in yaml.safe_load_all(rendered) if one]
        if not any(one["kind"] == "Namespace" for one in documents):
            documents.insert(0, _namespace(controller.namespace))
        for document in documents:
            if document["kind"] == "Deployment":
                (container,) = document["spec"]["template"]["spec"]["containers"]
                container |= {"image": controller.image, "imagePullPolicy": "IfNotPresent"}
        path = folder / "all.yaml"
        path.write_text(yaml.safe_dump_all(documents))
        # Definitions of this size do not fit into the annotation of a client-side apply.
        _kubectl(cluster, "apply", "--server-side", "--force-conflicts", "-f", str(path))


def _namespace(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _kubectl(cluster: TestCluster, *arguments: str) -> str:
    kubectl = shutil.which("kubectl")
    if not kubectl:
        raise NoServerError("no Kubeflow Trainer: kubectl is not in the PATH")
    done = subprocess.run(
        [kubectl, "--kubeconfig", str(cluster.kubeconfig), *arguments],
        capture_output=True,
        text=True,
        timeout=READY_SECONDS,
        check=False,
    )
    if done.returncode:
        raise NoServerError(f"kubectl {arguments[0]}: {done.stderr[-1000:]}")
    return done.stdout


def _is_ready(cluster: TestCluster, controller: Controller) -> bool:
    from kubernetes import client

    try:
        status = (
            client.AppsV1Api(cluster.api)
            .read_namespaced_deployment(controller.deployment, controller.namespace)
            .status
        )
    except client.ApiException as error:
        if error.status == 404:
            return False
        raise
    return bool(status.ready_replicas)


if __name__ == "__main__":
    if sys.argv[1:] != ["build"]:
        sys.exit("usage: python -m tests.servers.trainer build")
    for one in (JOBSET, TRAINER):
        print(build(one))
