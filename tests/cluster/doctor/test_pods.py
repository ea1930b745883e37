"""The short pods that the doctor starts to look from inside."""

import pytest

from components.core.errors import ExitCode
from tests.cluster.doctor.place import Place, write_quota
from tests.servers.cluster import TestCluster

pytestmark = pytest.mark.timeout(900)


def test_an_image_that_nobody_has_is_named_before_the_time_is_over(place: Place) -> None:
    place.write_options(images={"torch": "registry.invalid/moco:1"})

    code, words, way_out = place.fault("store in pods", "--wait", "300")

    assert code == ExitCode.LOST_CLUSTER
    assert words.startswith("the image registry.invalid/moco:1 cannot be pulled:")
    assert "images.NAME=REGISTRY/NAME@sha256:" in way_out


def test_a_pod_that_no_node_takes_is_given_up_and_explained(place: Place) -> None:
    place.write_options(node_selector={"moco-test/nowhere": "true"})

    code, words, way_out = place.fault("store in pods", "--wait", "3")

    assert code == ExitCode.LOST_CLUSTER
    assert "did not end in 3 s: no node can take it" in words
    assert "--wait SECONDS" in way_out


def test_an_image_of_something_else_is_told_from_a_store_that_fails(
    place: Place, cluster: TestCluster
) -> None:
    """Any image that the node has: that of the cluster's own name server."""
    servers = cluster.core.list_namespaced_pod("kube-system", label_selector="k8s-app=kube-dns")
    if not servers.items:
        pytest.skip("no image of something else: the cluster has no CoreDNS of its own")
    place.write_options(images={"torch": servers.items[0].spec.containers[0].image})

    code, words, _ = place.fault("store in pods")

    assert code == ExitCode.LOST_CLUSTER
    assert "does not know how to probe a store" in words or "does not start" in words
    assert "python" in words


def test_a_namespace_without_room_for_pods_is_told_by_the_quotas_words(place: Place) -> None:
    write_quota(place, {"pods": "0"})

    code, words, _ = place.fault("store in pods")

    assert code == ExitCode.LOST_CLUSTER
    assert "exceeded quota: small" in words
