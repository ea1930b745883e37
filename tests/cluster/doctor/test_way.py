"""A sound cluster, and the way to one, with each fault that a new user meets."""

import json
from pathlib import Path

import pytest
import yaml

from components.core.errors import ExitCode
from pipelines.__main__ import main
from pipelines.backends.kubeflow.doctor import CHECKS
from tests.charts.chart import CHART
from tests.cluster.doctor.place import (
    DIGITS,
    SECRET_NAME,
    Place,
    kubeconfig_with,
    make_claim,
    pin_image,
    use_kubeconfig,
)
from tests.servers.cluster import TestCluster
from tests.servers.helm import Helm

pytestmark = pytest.mark.timeout(900)


def test_a_sound_cluster_passes_from_inside_too(place: Place, pod_image: str) -> None:
    place.write_options(images={"torch": pod_image})

    found = place.passes(*DIGITS)

    unasked = {"queue", "trainer", "claims", "data sets", "artifacts"}
    assert set(found) >= {check.name for check in CHECKS} - unasked
    (inside,) = found["store in pods"]
    assert inside["state"] == "ok"
    assert f"minio://{place.bucket}/v2/artifacts: written, read and deleted" in inside["words"]
    assert pod_image in inside["words"]
    assert found["server"][0]["words"].startswith("Kubeflow Pipelines 2.17.0 at http://127.0.0.1:")
    left = place.minio.client().list_objects(place.bucket, recursive=True)
    assert [one.object_name for one in left] == []


def test_people_read_marks_words_and_ways_out(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.write_options(store_secret="nobody")

    code = main(["doctor", "--no-pods", "--cluster", f"namespace={place.namespace}"])

    lines = capsys.readouterr().out.splitlines()
    assert code == ExitCode.LOST_CLUSTER
    assert lines[0].startswith("✓ packages: kfp 2.17")
    fault = lines.index(f"✗ secret: namespace {place.namespace} has no secret nobody")
    assert lines[fault + 1].startswith("    → kubectl create secret generic nobody --namespace")
    assert "- store: waits for: secret" in lines
    assert " 1 failed, " in lines[-1]


def test_the_chart_as_it_is_installed_is_sound(
    place: Place, helm: Helm, tmp_path: Path, pod_image: str
) -> None:
    core = place.cluster.core
    for name in ("moco-transfer", "kfp-launcher"):
        core.delete_namespaced_config_map(name, place.namespace)
    values = {
        "images": {"torch": pod_image},
        "store": {
            "root": place.options["root"],
            "endpoint": place.minio.endpoint,
            "region": place.minio.region,
            "existingSecret": SECRET_NAME,
        },
        "launcher": {"create": True},
    }
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    installed = Helm(helm.binary, place.cluster.kubeconfig, place.namespace)
    installed("install", "moco", CHART, "--values", tmp_path / "values.yaml")
    try:
        found = place.passes(*DIGITS, "--cluster", f"server={place.options['server']}")
    finally:
        installed("uninstall", "moco")

    assert found["chart"][0]["words"].startswith("moco-transfer-")
    assert found["service account"][0]["words"] == "moco-transfer"
    assert found["launcher"][0]["state"] == "ok"


def test_a_context_of_another_name_is_refused_by_name(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["doctor", "--cluster", "context=nowhere"])

    out = capsys.readouterr().out
    assert code == ExitCode.LOST_CLUSTER
    assert "'nowhere'" in out
    assert "kubectl config get-contexts" in out
    assert "- server: waits for: cluster" in out


def test_a_cluster_that_is_away_is_named(
    cluster: TestCluster,
    environment: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    closed = kubeconfig_with(cluster, tmp_path / "config", {}, "https://127.0.0.1:9")
    use_kubeconfig(environment, closed)

    assert main(["doctor"]) == ExitCode.LOST_CLUSTER

    out = capsys.readouterr().out
    assert "✗ cluster: cannot ask https://127.0.0.1:9 for its version" in out
    assert "Connection refused" in out


def test_a_token_that_is_no_longer_accepted_is_told_from_a_cluster_that_is_away(
    place: Place, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stale = kubeconfig_with(place.cluster, tmp_path / "config", {"token": "canary-token"})
    use_kubeconfig(environment, stale)

    code, words, way_out = place.fault("credentials")

    assert code == ExitCode.LOST_CLUSTER
    assert "401" in words
    assert "expired" in words
    assert "log in" in way_out
    assert "canary-token" not in place.printed


def test_nobody_in_particular_is_told_so(
    place: Place, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_kubeconfig(environment, kubeconfig_with(place.cluster, tmp_path / "config", {}))

    code, words, _ = place.fault("credentials")

    assert code == ExitCode.LOST_CLUSTER
    assert "no credentials" in words


def test_a_user_without_rights_learns_which_and_who_can_give_them(
    place: Place, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    token = place.cluster.core.create_namespaced_service_account_token(
        "default", place.namespace, {"spec": {"expirationSeconds": 600}}
    )
    user = {"token": token.status.token}
    weak = kubeconfig_with(place.cluster, tmp_path / "config", user)
    use_kubeconfig(environment, weak)

    code, words, way_out = place.fault("chart")

    name = f"system:serviceaccount:{place.namespace}:default"
    assert code == ExitCode.NO_PERMISSION
    assert words == f"{name} may not read the config map moco-transfer of {place.namespace}"
    assert f"--serviceaccount={place.namespace}:default --namespace={place.namespace}" in way_out
    _, found = place.doctor()
    (rights, *_) = found["rights"]
    assert rights["state"] == "failed"
    assert rights["code"] == ExitCode.NO_PERMISSION
    assert "get pods/log (moco logs)" in rights["words"]
    assert "create pods (moco doctor; --no-pods does without)" in rights["words"]
    assert token.status.token not in place.printed


def test_a_namespace_that_is_not_there_is_named(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--cluster", "namespace=nobody"]) == ExitCode.LOST_CLUSTER

    out = capsys.readouterr().out
    assert "✗ namespace: there is no namespace nobody" in out
    assert "    → kubectl create namespace nobody" in out
    assert "- chart: waits for: namespace" in out


def test_a_namespace_without_the_chart_gets_the_command_that_installs_it(place: Place) -> None:
    place.cluster.core.delete_namespaced_config_map("moco-transfer", place.namespace)

    code, words, way_out = place.fault("chart", "--cluster", f"server={place.options['server']}")

    assert code == ExitCode.LOST_CLUSTER
    assert f"namespace {place.namespace} has no config map moco-transfer" in words
    assert (
        f"helm install moco-transfer charts/moco-transfer --namespace {place.namespace}" in way_out
    )


def test_options_of_a_file_stand_in_for_the_chart(place: Place, tmp_path: Path) -> None:
    place.cluster.core.delete_namespaced_config_map("moco-transfer", place.namespace)
    (tmp_path / "cluster.json").write_text(json.dumps(place.options))

    found = place.passes("--no-pods", "--cluster", f"@{tmp_path / 'cluster.json'}")

    assert found["chart"][0]["state"] == "warning"
    assert found["store"][0]["state"] == "ok"


def test_options_that_are_none_are_named_with_the_nearest(place: Place) -> None:
    place.write_options(store_secrt="x")

    code, words, _ = place.fault("options")

    assert code == ExitCode.BAD_CONFIG
    assert f"config map moco-transfer of namespace {place.namespace}" in words
    assert "did you mean 'store_secret'?" in words


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("memory_pretrian=8Gi", "did you mean 'memory_pretrain'?"),
        ("memory_pretrain=big", "'big' is no amount of a resource"),
    ],
)
def test_a_parameter_that_is_none_is_refused(place: Place, parameter: str, words: str) -> None:
    pin_image(place)
    make_claim(place, "imagenet")
    code, found = place.doctor("linear", "--no-pods", "--parameter", parameter)

    assert code == ExitCode.USAGE
    assert any(words in one["words"] for ones in found.values() for one in ones)
