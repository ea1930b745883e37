"""The chart on a real cluster: installed, upgraded, tested, uninstalled."""

import base64
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.digits import STAGE as DIGITS
from components.rendering.config import DigitsConfig, PicturesConfig
from pipelines.backends.kubeflow.connection import Cluster, cluster_options
from tests.charts.chart import CHART, RELEASE, VARIANTS, Document, pods, rendered
from tests.servers.cluster import TestCluster, restricted_pod
from tests.servers.go import NoServerError
from tests.servers.helm import Helm, HelmFailed
from tests.servers.kueue import KUEUE
from tests.servers.trainer import TRAINER, define

NEEDS = {"trainer": TRAINER, "kueue": KUEUE}
TIMEOUT = ("--timeout", "240s")

# Images start slowly where many tests share a small node.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture
def store_image() -> str:
    """Give the reference of an image of MinIO on the cluster's nodes, or skip."""
    image = os.environ.get("MOCO_TEST_STORE_IMAGE")
    if not image:
        pytest.skip("no store: MOCO_TEST_STORE_IMAGE names no image of MinIO on the nodes")
    return image


@pytest.fixture
def store_values(store_image: str, pod_image: str) -> Sequence[str]:
    """Choose images that the nodes hold for the namespace's own store."""
    images = (f"store.server.image={store_image}", f"images.torch={pod_image}")
    return (*VARIANTS["store-server"], *(part for image in images for part in ("--set", image)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_installed_and_its_pods_are_admitted(
    helm: Helm, there: Helm, cluster: TestCluster, namespace: str, variant: str
) -> None:
    if variant in NEEDS:
        try:
            define(cluster, NEEDS[variant])
        except NoServerError as reason:
            pytest.skip(str(reason))

    # Hooks are pods of images that the nodes may not hold.
    there("install", RELEASE, CHART, *VARIANTS[variant], "--no-hooks")

    assert "STATUS: deployed" in there("status", RELEASE)
    for name, pod in pods(rendered(helm, *VARIANTS[variant])):
        pod["metadata"] = {"name": name, "labels": pod["metadata"].get("labels", {})}
        if variant == "existing-account":
            pod["spec"]["serviceAccountName"] = "default"
        cluster.core.create_namespaced_pod(namespace, pod, dry_run="All")


def test_the_command_line_reads_the_options_of_the_namespace(
    there: Helm, cluster: TestCluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there("install", RELEASE, CHART, *VARIANTS["store"], *VARIANTS["gpus"])
    # The client reads KUBECONFIG when it is imported, which it has been here.
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(cluster.kubeconfig)
    )
    monkeypatch.delenv("MOCO_CLUSTER", raising=False)

    given = cluster_options([f"namespace={namespace}"])

    assert given.service_account == "moco-transfer"
    assert given.root == "s3://experiments/moco"
    assert given.gpus_per_node == 4
    assert Cluster(given).store_credentials() == {
        "AWS_ACCESS_KEY_ID": "key-of-the-example",
        "AWS_SECRET_ACCESS_KEY": "secret-of-the-example",
    }


def test_a_wrong_value_is_refused_before_anything_is_installed(
    there: Helm, cluster: TestCluster, namespace: str
) -> None:
    with pytest.raises(HelmFailed) as refused:
        there("install", RELEASE, CHART, "--set", "gpu.perNode=many")

    assert "at '/gpu/perNode': got string, want integer" in str(refused.value)
    maps = cluster.core.list_namespaced_config_map(namespace).items
    assert [one.metadata.name for one in maps if one.metadata.name != "kube-root-ca.crt"] == []


# What the account of the runs' pods may do.

LEAST = {
    ("argoproj.io", "workflowtaskresults", "", "create patch"),
    ("argoproj.io", "workflows", "", "get list"),
    ("", "configmaps", "kfp-launcher", "get"),
    ("", "secrets", "mlpipeline-minio-artifact", "get"),
}
FOR_TRAINER = {
    ("trainer.kubeflow.org", "trainjobs", "", "create delete get list patch watch"),
    ("jobset.x-k8s.io", "jobsets", "", "get list watch"),
    ("batch", "jobs", "", "get list watch"),
    ("", "pods", "", "get list watch"),
    ("", "events", "", "get list watch"),
    ("", "pods/log", "", "get"),
}


@pytest.mark.parametrize(("trainer", "rights"), [(False, LEAST), (True, LEAST | FOR_TRAINER)])
def test_the_account_has_the_least_rights(
    helm: Helm, there: Helm, cluster: TestCluster, namespace: str, trainer: bool, rights: set[Any]
) -> None:
    there("install", RELEASE, CHART)
    if trainer:  # Trainer's own objects may be unknown to this cluster: the role is not
        role = [
            document
            for document in rendered(helm, *VARIANTS["trainer"])
            if document["kind"] == "Role"
        ]
        _replace_role(cluster, namespace, role[0])

    everybody = _rights(cluster, namespace, "default")
    assert _rights(cluster, namespace, "moco-transfer") - everybody == rights


def test_the_account_reads_the_stores_secret_and_no_other(
    there: Helm, cluster: TestCluster, namespace: str
) -> None:
    from kubernetes import client

    there("install", RELEASE, CHART)
    for name in ("mlpipeline-minio-artifact", "other"):
        secret = {"metadata": {"name": name}, "stringData": {"accesskey": name}}
        cluster.core.create_namespaced_secret(namespace, secret)
    core = client.CoreV1Api(_impersonating(cluster, namespace, "moco-transfer"))

    assert core.read_namespaced_secret("mlpipeline-minio-artifact", namespace).data
    forbidden: dict[str, Callable[[], Any]] = {
        "another secret": lambda: core.read_namespaced_secret("other", namespace),
        "all secrets": lambda: core.list_namespaced_secret(namespace),
        "another namespace": lambda: core.read_namespaced_secret("other", "kube-system"),
        "a pod": lambda: core.create_namespaced_pod(
            namespace, restricted_pod("mine", "any", ["true"])
        ),
        "a claim": lambda: core.delete_namespaced_persistent_volume_claim("any", namespace),
    }
    for what, attempt in forbidden.items():
        with pytest.raises(client.ApiException) as refused:
            attempt()
        assert refused.value.status == 403, what


# What outlives a release.


def test_claims_and_generated_keys_outlive_upgrade_and_release(
    there: Helm, cluster: TestCluster, namespace: str
) -> None:
    values = ("--set", "store.server.image=any", *VARIANTS["datasets"], *VARIANTS["store-server"])

    def kept() -> tuple[Any, Any]:
        secret = cluster.core.read_namespaced_secret("moco-transfer-store", namespace)
        claim = cluster.core.read_namespaced_persistent_volume_claim("inaturalist-2018", namespace)
        return secret.data, claim.metadata.uid

    there("install", RELEASE, CHART, *values, "--no-hooks")
    first = kept()
    there("upgrade", RELEASE, CHART, *values, "--set", "gpu.perNode=2", "--no-hooks")
    assert kept() == first
    there("uninstall", RELEASE, "--no-hooks", "--wait", *TIMEOUT)
    assert kept() == first
    there("install", RELEASE, CHART, *values, "--no-hooks")
    assert kept() == first
    assert all(len(base64.b64decode(key)) >= 20 for key in first[0].values())


def test_the_namespaces_own_store_serves_and_keeps_what_it_has(
    there: Helm, cluster: TestCluster, namespace: str, store_values: Sequence[str], pod_image: str
) -> None:
    there("install", RELEASE, CHART, *store_values, "--wait", *TIMEOUT)
    tested = there("test", RELEASE, "--logs", *TIMEOUT)
    assert '"ok": true' in tested
    assert _in_store(cluster, namespace, pod_image, "write('kept', b'as it was')") == "True"

    there("uninstall", RELEASE, "--wait", *TIMEOUT)
    there("install", RELEASE, CHART, *store_values, "--wait", *TIMEOUT)

    assert _in_store(cluster, namespace, pod_image, "read('kept')") == "b'as it was'"


def test_helm_test_says_what_is_wrong_with_a_store(
    there: Helm, cluster: TestCluster, namespace: str, pod_image: str
) -> None:
    secret = {
        "metadata": {"name": "mlpipeline-minio-artifact"},
        "stringData": {"accesskey": "someone", "secretkey": "secret-of-theirs"},
    }
    cluster.core.create_namespaced_secret(namespace, secret)
    nowhere = "store.endpoint=http://10.96.255.254:9000"
    there("install", RELEASE, CHART, "--set", f"images.torch={pod_image}", "--set", nowhere)

    with pytest.raises(HelmFailed) as failed:
        there("test", RELEASE, "--logs", *TIMEOUT)

    assert '"ok": false' in str(failed.value)
    assert "10.96.255.254:9000" in str(failed.value)
    assert "secret-of-theirs" not in str(failed.value)


def test_a_data_set_in_a_claim_is_checked_in_the_cluster_and_outlives_the_release(
    there: Helm, cluster: TestCluster, namespace: str, pod_image: str, tmp_path: Path
) -> None:
    values = tmp_path / "values.yaml"
    claim = {"imagenet": {"create": True, "size": "1Gi"}}
    values.write_text(yaml.safe_dump({"datasets": claim}), "utf-8")
    install = ("install", RELEASE, CHART, "--values", values, "--no-hooks")

    def on_data_set(name: str, command: list[str], *, write: bool = False) -> tuple[int, str]:
        mounts = [{"name": "data", "mountPath": "/data/imagenet", "readOnly": not write}]
        mounts += [{"name": "scratch", "mountPath": "/tmp"}]
        environment = [{"name": "HOME", "value": "/tmp"}]
        pod = restricted_pod(name, pod_image, command, volumeMounts=mounts, env=environment)
        pod["spec"]["volumes"] = [
            {"name": "data", "persistentVolumeClaim": {"claimName": "imagenet"}},
            {"name": "scratch", "emptyDir": {}},
        ]
        return cluster.run_pod(namespace, pod)

    check = ["moco", "data", "check", "imagenet", "/data/imagenet/world"]
    there(*install)
    few = PicturesConfig(train=20, val=20)
    config = DigitsConfig(train_scenes=40, val_scenes=20, pictures=few).to_json()
    outputs = {port: f"/tmp/{port}" for port in DIGITS.outputs}
    outputs["imagenet"] = "/data/imagenet/world"
    assert on_data_set("empty", check)[0] == 65
    code, log = on_data_set("fill", ["python", *DIGITS.argv(config, {}, outputs)], write=True)
    assert code == 0, log
    there("uninstall", RELEASE, "--no-hooks", "--wait", *TIMEOUT)
    there(*install)

    code, log = on_data_set("check", check)
    assert code == 0, log
    assert "no fault" in log


def _impersonating(cluster: TestCluster, namespace: str, account: str) -> Any:
    from kubernetes import config

    api = config.new_client_from_config(str(cluster.kubeconfig))
    api.set_default_header("Impersonate-User", f"system:serviceaccount:{namespace}:{account}")
    return api


def _rights(cluster: TestCluster, namespace: str, account: str) -> set[tuple[str, ...]]:
    """Ask for all that an account may do, a tuple for each kind of object."""
    from kubernetes import client

    api = client.AuthorizationV1Api(_impersonating(cluster, namespace, account))
    review = api.create_self_subject_rules_review({"spec": {"namespace": namespace}})
    return {right for rule in review.status.resource_rules for right in _single(rule)}


def _single(rule: Any) -> Iterator[tuple[str, ...]]:
    for group in rule.api_groups:
        for resource in rule.resources:
            for name in rule.resource_names or [""]:
                yield group, resource, name, " ".join(sorted(rule.verbs))


def _replace_role(cluster: TestCluster, namespace: str, role: Document) -> None:
    from kubernetes import client

    api = client.RbacAuthorizationV1Api(cluster.api)
    api.replace_namespaced_role(role["metadata"]["name"], namespace, role)


def _in_store(cluster: TestCluster, namespace: str, image: str, call: str) -> str:
    """Run a method of the store in a pod, and return what it printed."""
    program = (
        "from components.core.store import open_store\n"
        f"print(open_store('minio://runs/moco').{call})"
    )
    keys = {"AWS_ACCESS_KEY_ID": "accesskey", "AWS_SECRET_ACCESS_KEY": "secretkey"}
    environment: list[Document] = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": "moco-transfer-store", "key": key}}}
        for name, key in keys.items()
    ]
    endpoint = f"http://moco-transfer-store.{namespace}:9000"
    environment += [{"name": "MOCO_S3_ENDPOINT", "value": endpoint}]
    name = f"store-{call.partition('(')[0]}"
    command = ["python", "-c", program]
    code, log = cluster.run_pod(namespace, restricted_pod(name, image, command, env=environment))
    assert code == 0, log
    return log.strip()
