"""Kueue for the test cluster: its own manifests, and its controller built with Go.

`python -m tests.servers.kueue build` builds the controller beforehand; see `tests.servers.trainer`.
"""

import sys

import pytest

from tests.servers.cluster import TestCluster
from tests.servers.go import NoServerError
from tests.servers.trainer import Controller, build, install

KUEUE = Controller(
    name="kueue-controller",
    module="sigs.k8s.io/kueue@v0.17.0",
    package="./cmd/kueue",
    manifests=("config/default",),
    definitions="config/components/crd/bases",
    namespace="kueue-system",
    deployment="kueue-controller-manager",
    kustomization={},
)


@pytest.fixture(scope="session")
def kueue(cluster: TestCluster) -> TestCluster:
    """Give a cluster that runs Kueue, or skip with the reason; it stays there."""
    try:
        install(cluster, KUEUE)
    except NoServerError as reason:
        pytest.skip(str(reason))
    return cluster


if __name__ == "__main__":
    if sys.argv[1:] != ["build"]:
        sys.exit("usage: python -m tests.servers.kueue build")
    print(build(KUEUE))
