"""Fixtures of the doctor's tests."""

import os
from collections.abc import Iterator

import pytest
import yaml

from tests.cluster.doctor.place import SECRET_NAME, SOUND, Place, pipeline_server, use_kubeconfig
from tests.servers.cluster import TestCluster
from tests.servers.minio import MinioServer


@pytest.fixture
def environment(cluster: TestCluster, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The administrator's kubeconfig, and nothing else of this process's environment."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "MINIO_", "MOCO_"))]:
        if not name.startswith("MOCO_TEST_"):
            monkeypatch.delenv(name)
    use_kubeconfig(monkeypatch, cluster.kubeconfig)
    return monkeypatch


@pytest.fixture
def place(
    cluster: TestCluster,
    namespace: str,
    node_minio: MinioServer,
    environment: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Place]:
    """A sound namespace; its pipeline server is one that only tells its health."""
    bucket = node_minio.make_bucket()
    keys = {"accesskey": node_minio.access_key, "secretkey": node_minio.secret_key}
    core = cluster.core
    core.create_namespaced_secret(
        namespace, {"metadata": {"name": SECRET_NAME}, "stringData": keys}
    )
    launcher = {"minio": {"default": {"endpoint": node_minio.address}}}
    core.create_namespaced_config_map(
        namespace,
        {"metadata": {"name": "kfp-launcher"}, "data": {"providers": yaml.safe_dump(launcher)}},
    )
    core.create_namespaced_config_map(
        namespace, {"metadata": {"name": "moco-transfer"}, "data": {"cluster.json": "{}"}}
    )
    with pipeline_server(SOUND) as server:
        options = {
            "server": server,
            "service_account": "default",
            "root": f"minio://{bucket}/v2/artifacts",
            "store_endpoint": node_minio.endpoint,
            "store_region": node_minio.region,
            "store_secret": SECRET_NAME,
            "images": {"torch": os.environ.get("MOCO_TEST_IMAGE", "moco-transfer/torch:none")},
        }
        made = Place(cluster, namespace, node_minio, bucket, options, capsys)
        made.write_options()
        yield made
    assert not made.pods()
