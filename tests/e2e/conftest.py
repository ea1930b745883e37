import ipaddress
import socket
from collections.abc import Iterator

import pytest

from tests.servers.cluster import TestCluster, cluster, namespace, pod_image
from tests.servers.go import NoServerError
from tests.servers.minio import MinioServer, started_minio

__all__ = ["cluster", "namespace", "node_minio", "pod_image"]


@pytest.fixture(scope="session")
def node_minio(cluster: TestCluster) -> Iterator[MinioServer]:
    """Run a MinIO server that the cluster's pods reach: on their node's address, if it is ours."""
    (address,) = (
        one.address
        for one in cluster.core.list_node().items[0].status.addresses
        if one.type == "InternalIP"
    )
    try:
        with socket.socket() as probe:
            probe.bind((str(ipaddress.ip_address(address)), 0))
    except OSError:
        pytest.skip(f"no store for pods: the node's address {address} is not one of this machine")
    try:
        with started_minio(host=address) as server:
            yield server
    except NoServerError as reason:
        pytest.skip(str(reason))
