"""The pipeline server, as the doctor finds it.

No older release can be had here, so a server that only tells its health stands in for one;
`MOCO_TEST_KFP` names the URL of a real one of this release.
"""

import json
import os

import pytest
import yaml

from components.core.errors import ExitCode
from pipelines.__main__ import main
from pipelines.backends.kubeflow.doctor.server import _host
from tests.cluster.doctor.place import Place, pipeline_server

pytestmark = pytest.mark.timeout(900)


def test_a_server_older_than_the_client_is_refused(place: Place) -> None:
    with pipeline_server({"multi_user": True, "tag_name": "2.5.0"}) as old:
        code, words, way_out = place.fault("server", "--no-pods", "--cluster", f"server={old}")

    assert code == ExitCode.LOST_CLUSTER
    assert f"{old} is Kubeflow Pipelines 2.5.0, older than the 2.17" in words
    assert "upgrade the server to 2.17 or newer" in way_out


@pytest.mark.parametrize(("tag", "state"), [("2.18.1", "ok"), ("unknown", "warning")])
def test_a_newer_server_passes_and_a_silent_one_is_warned_of(
    place: Place, tag: str, state: str
) -> None:
    with pipeline_server({"multi_user": True, "tag_name": tag}) as server:
        found = place.passes("--no-pods", "--cluster", f"server={server}")

    assert found["server"][0]["state"] == state
    assert tag in found["server"][0]["words"]
    assert ("moco was tried with 2.17" in found["server"][0]["words"]) == (state == "ok")


def test_something_else_at_the_servers_address_is_no_server(place: Place) -> None:
    with pipeline_server("<html>log in</html>") as page:
        code, words, way_out = place.fault("server", "--no-pods", "--cluster", f"server={page}")

    assert code == ExitCode.LOST_CLUSTER
    assert "a login page, or another server" in words
    assert "MOCO_KFP_TOKEN" in way_out


def test_a_server_that_is_away_is_named(place: Place) -> None:
    place.write_options(server="http://127.0.0.1:9")
    code, words, way_out = place.fault("server", "--no-pods")

    assert code == ExitCode.LOST_CLUSTER
    assert "http://127.0.0.1:9" in words
    assert "--cluster server=URL" in way_out


def test_a_cluster_without_the_pipeline_service_is_told_so(place: Place) -> None:
    code, words, _ = place.fault(
        "server", "--no-pods", "--cluster", "server=null", "--cluster", "server_namespace=default"
    )

    assert code == ExitCode.LOST_CLUSTER
    assert "service default/ml-pipeline:8888" in words


def test_a_server_for_one_user_does_not_run_pods_elsewhere(place: Place) -> None:
    with pipeline_server({"multi_user": False, "tag_name": "2.17.0"}) as server:
        code, words, way_out = place.fault("server", "--no-pods", "--cluster", f"server={server}")

    assert code == ExitCode.LOST_CLUSTER
    assert f"its pods run in its own namespace, kubeflow, and not in {place.namespace}" in words
    assert "--cluster namespace=kubeflow" in way_out


@pytest.mark.parametrize(
    ("defaults", "state", "words"),
    [
        ("OnError", "ok", "exit code is not retried, a pod that is lost is"),
        ("Always", "ok", "exit code is retried, a pod that is lost is"),
        ("", "warning", "exit code is retried, a pod that is lost is not"),
    ],
)
def test_what_the_platform_retries_is_said(
    place: Place, defaults: str, state: str, words: str
) -> None:
    strategy = {"limit": "2", "retryPolicy": defaults} if defaults else {}
    spec = {"spec": {"templateDefaults": {"retryStrategy": strategy}}}
    place.cluster.core.create_namespaced_config_map(
        place.namespace,
        {
            "metadata": {"name": "workflow-controller-configmap"},
            "data": {"workflowDefaults": yaml.safe_dump(spec)},
        },
    )

    _, found = place.doctor("--no-pods", "--cluster", f"server_namespace={place.namespace}")

    assert found["retries"][0]["state"] == state
    assert words in found["retries"][0]["words"]


def test_a_real_server_tells_its_version(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = os.environ.get("MOCO_TEST_KFP")
    if not server:
        pytest.skip("no Kubeflow Pipelines: MOCO_TEST_KFP names no server")
    place = ("--cluster", "namespace=kubeflow", "--cluster", f"server={server}")
    main(["doctor", "--no-pods", "--json", *place])

    found = json.loads(capsys.readouterr().out)["findings"]
    words = {one["check"]: (one["state"], one["words"]) for one in found}
    assert words["server"][0] == "ok"
    assert words["server"][1].startswith("Kubeflow Pipelines 2.17")
    assert "a step that fails with an exit code is not retried" in words["retries"][1]


def test_a_service_account_that_is_not_there_is_named(place: Place) -> None:
    place.write_options(service_account="nobody")
    code, words, way_out = place.fault("service account", "--no-pods")

    assert code == ExitCode.LOST_CLUSTER
    assert words == f"namespace {place.namespace} has no service account nobody"
    assert "--cluster service_account=NAME" in way_out


def test_two_stores_in_one_run_are_warned_of(place: Place) -> None:
    place.cluster.core.delete_namespaced_config_map("kfp-launcher", place.namespace)

    found = place.passes("--no-pods")

    assert found["launcher"][0]["state"] == "warning"
    assert "seaweedfs.kubeflow:9000" in found["launcher"][0]["words"]
    assert place.minio.endpoint in found["launcher"][0]["words"]


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [
        ("http://seaweedfs.kubeflow:9000", "seaweedfs.kubeflow:9000"),
        ("seaweedfs.kubeflow.svc.cluster.local:9000", "seaweedfs.kubeflow:9000"),
        ("https://s3.example.org", "s3.example.org"),
    ],
)
def test_a_service_has_one_name_however_it_is_spelt(endpoint: str, host: str) -> None:
    assert _host(endpoint) == host
