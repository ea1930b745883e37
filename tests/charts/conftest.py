"""Fixtures of the chart's tests."""

import dataclasses

import pytest

from tests.servers.cluster import TestCluster, cluster, namespace, pod_image
from tests.servers.helm import Helm, helm

__all__ = ["cluster", "helm", "namespace", "pod_image", "there"]


@pytest.fixture
def there(helm: Helm, cluster: TestCluster, namespace: str) -> Helm:
    """Give a Helm that works in the test's namespace."""
    return dataclasses.replace(helm, kubeconfig=cluster.kubeconfig, namespace=namespace)
