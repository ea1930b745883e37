"""The short pods that the doctor starts to look from inside."""

import re

import pytest

from components.core.errors import ExitCode
from tests.cluster.doctor.place import DIGITS, SOUND, Place, pipeline_server, write_quota
from tests.servers.cluster import TestCluster
from tests.servers.minio import MinioServer

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


PARTS = (*DIGITS, "--cluster", "workflow_size=20000")  # of a run that is cut


def test_a_pod_that_may_start_runs_begins_the_parts_of_a_run(
    place: Place, node_minio: MinioServer
) -> None:
    node = node_minio.address.partition(":")[0]
    with pipeline_server(SOUND, node) as server:
        found = place.passes(*PARTS, "--cluster", f"server_in_cluster={server}")
    (finding,) = found["next parts"]
    assert re.search(r"a run has about \d parts; from a pod, ", finding["words"])
    assert f"{server} shows runs" in finding["words"]

    with pipeline_server(SOUND, node, runs=False) as server:
        _, words, way_out = place.fault(
            "next parts", *PARTS, "--cluster", f"server_in_cluster={server}"
        )
    assert "which no pod could begin: " in words and "this user may not" in words
    assert "PodDefault" in way_out

    found = place.passes(*DIGITS, "--no-pods")
    assert found["next parts"][0]["words"].startswith("one workflow holds")


def test_a_namespace_without_room_for_pods_is_told_by_the_quotas_words(place: Place) -> None:
    write_quota(place, {"pods": "0"})

    code, words, _ = place.fault("store in pods")

    assert code == ExitCode.LOST_CLUSTER
    assert "exceeded quota: small" in words
