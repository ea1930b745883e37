"""The real cluster and its store, for the tests of what talks to them."""

from tests.e2e.conftest import cluster, namespace, node_minio, pod_image
from tests.servers.helm import helm

__all__ = ["cluster", "helm", "namespace", "node_minio", "pod_image"]
