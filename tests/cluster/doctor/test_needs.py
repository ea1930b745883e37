"""What a recipe needs of a cluster: images, claims, data sets, GPUs, quota, queues."""

import io
import secrets

import pytest

from components.core.errors import ExitCode, MocoError
from pipelines.__main__ import main
from pipelines.backends.kubeflow.connection import Cluster, cluster_options
from pipelines.backends.kubeflow.doctor import require
from pipelines.recipes import Options, build_plan, load_recipe
from tests.cluster.doctor.place import (
    DIGITS,
    Place,
    fill_claim,
    gpus,
    largest_stage,
    make_claim,
    pin_image,
    roomy_arguments,
    write_quota,
)
from tests.servers.go import NoServerError
from tests.servers.kueue import KUEUE
from tests.servers.trainer import define

pytestmark = pytest.mark.timeout(900)


def test_a_tag_is_refused_at_full_scale_and_warned_of_in_miniature(place: Place) -> None:
    place.write_options(images={"torch": "registry.example/moco:1"})
    code, words, way_out = place.fault("images", "linear", "--no-pods")
    _, small = place.doctor(*DIGITS, "--no-pods")

    assert code == ExitCode.USAGE
    assert words.startswith("registry.example/moco:1 is a tag")
    assert "--cluster images.torch=REGISTRY/NAME@sha256:..." in way_out
    assert [one["state"] for one in small["images"]] == ["warning"]


def test_a_data_set_without_a_claim_is_told_how_to_name_one(place: Place) -> None:
    pin_image(place)
    code, words, way_out = place.fault("claims", "linear", "--no-pods")

    assert code == ExitCode.LOST_CLUSTER
    assert words == (
        f"namespace {place.namespace} has no persistent volume claim imagenet for the data set "
        "imagenet"
    )
    assert "--data imagenet=CLAIM" in way_out


def test_a_claim_that_no_pod_ever_used_holds_nothing(place: Place) -> None:
    pin_image(place)
    from kubernetes import client

    storage = client.StorageV1Api(place.cluster.api)
    name = f"moco-test-{secrets.token_hex(4)}"
    storage.create_storage_class(
        {
            "metadata": {"name": name},
            "provisioner": "example.com/nobody",
            "volumeBindingMode": "WaitForFirstConsumer",
        }
    )
    try:
        make_claim(place, "unused", name)
        code, words, _ = place.fault("claims", "linear", "--no-pods", "--data", "imagenet=unused")
    finally:
        storage.delete_storage_class(name)

    assert code == ExitCode.BAD_DATA
    assert words == (
        "imagenet: the claim unused has never been used by a pod, so nothing is in it yet"
    )


def test_an_empty_claim_and_a_filled_one_are_told_apart(place: Place, pod_image: str) -> None:
    make_claim(place, "imagenet")
    place.write_options(images={"torch": pod_image})
    roomy = roomy_arguments()

    with gpus(place.cluster, 8) as accelerator:
        arguments = ("linear", *roomy, "--cluster", f"accelerator={accelerator}")
        _, empty = place.doctor(*arguments)
        fill_claim(place, pod_image, "imagenet")
        _, filled = place.doctor(*arguments)

    assert [one["state"] for one in empty["data sets"]] == ["failed"]
    assert empty["data sets"][0]["code"] == ExitCode.BAD_DATA
    assert "imagenet: 2 faults in claim imagenet" in empty["data sets"][0]["words"]
    assert "train: the folder is missing" in empty["data sets"][0]["words"]
    assert filled["data sets"][0]["state"] == "warning"  # two classes are not ImageNet's thousand
    assert "train classes 2, train images 2" in filled["data sets"][0]["words"]
    assert "ImageNet-1k as published has 1,000" in filled["data sets"][0]["words"]
    assert filled["nodes"][0]["state"] == "ok"


def test_what_exists_already_has_to_be_in_the_store(place: Place) -> None:
    pin_image(place)
    given = f"minio://{place.bucket}/sets/imagenet"
    arguments = ("linear", "--rows", "random", "--no-pods", "--data", f"imagenet={given}")
    code, words, way_out = place.fault("artifacts", *arguments)
    assert code == ExitCode.BAD_DATA
    assert words == f"{given}, a data set that linear_random_0 reads, is not there"
    assert "--parameter uri_linear_random_0_data=URI names another place" in way_out

    store = place.minio.client()
    store.put_object(place.bucket, "sets/imagenet/train/index.json", io.BytesIO(b"{}"), 2)
    _, found = place.doctor(*arguments)
    assert [one["state"] for one in found["artifacts"]] == ["ok"]
    assert not found.get("claims")  # nothing is mounted


def test_a_cluster_without_gpus_is_told_what_the_largest_step_wants(place: Place) -> None:
    accelerator = f"moco-test.example/{secrets.token_hex(4)}"
    place.write_options(accelerator=accelerator)
    pin_image(place)
    make_claim(place, "imagenet")

    code, words, way_out = place.fault("nodes", "linear", "--no-pods")

    assert code == ExitCode.LOST_CLUSTER
    assert words.startswith(f"no node takes {largest_stage()} (8 {accelerator}, 64 CPU, ")
    assert f"has 0 {accelerator}" in words
    assert "--scale digits" in way_out


def test_sizes_of_this_run_count_rather_than_declared_ones(place: Place) -> None:
    pin_image(place)
    make_claim(place, "imagenet")
    with gpus(place.cluster, 2) as accelerator:
        chosen = ("--cluster", f"accelerator={accelerator}")
        code, words, way_out = place.fault(
            "nodes", "linear", "--no-pods", *chosen, *roomy_arguments()
        )
        assert code == ExitCode.LOST_CLUSTER
        assert f"has 2 {accelerator}" in words
        assert "--cluster gpus_per_node=2" in way_out
        _, found = place.doctor("linear", "--no-pods", *chosen, *roomy_arguments(gpus=2))

    assert found["nodes"][0]["state"] == "ok", found["nodes"]


def test_a_step_of_several_nodes_wants_the_trainer(place: Place) -> None:
    pin_image(place)
    make_claim(place, "imagenet")
    place.write_options(gpus_per_node=4)

    _, found = place.doctor("linear", "--no-pods")

    (trainer,) = found["trainer"]
    assert trainer["state"] == "failed"
    assert (
        f"{largest_stage()} (2 pods of 4 nvidia.com/gpu, 32 CPU, 160 GiB memory)"
        in trainer["words"]
    )
    runtime = "has no training runtime moco-transfer"
    assert "needs Kubeflow Trainer" in trainer["words"] or runtime in trainer["words"]


def test_a_quota_that_is_used_up_is_told_with_its_numbers(place: Place) -> None:
    write_quota(place, {"requests.cpu": "100m", "requests.memory": "64Gi"})

    code, words, way_out = place.fault("quota", *DIGITS, "--no-pods")

    assert code == ExitCode.LOST_CLUSTER
    assert words == (
        f"the quota small of {place.namespace} has requests.cpu 0.1, 0 of it used, and "
        f"{largest_stage('digits')} (0.25 CPU, 4 GiB memory) needs 0.25"
    )
    assert f"kubectl edit resourcequota small --namespace {place.namespace}" in way_out


def test_a_limit_range_that_refuses_the_pods_is_named(place: Place) -> None:
    limit = {"type": "Container", "max": {"memory": "1Gi"}}
    place.cluster.core.create_namespaced_limit_range(
        place.namespace, {"metadata": {"name": "narrow"}, "spec": {"limits": [limit]}}
    )

    code, words, _ = place.fault("limits", *DIGITS, "--no-pods")

    assert code == ExitCode.LOST_CLUSTER
    assert f"the limit range narrow of {place.namespace} allows a container 1 GiB" in words


def test_a_queue_that_is_not_there_is_named(place: Place) -> None:
    place.write_options(labels={"kueue.x-k8s.io/queue-name": "nobody"})

    code, words, _ = place.fault("queue", "--no-pods")

    assert code == ExitCode.LOST_CLUSTER
    assert "nobody" in words


def test_a_queue_of_the_namespace_is_found(place: Place) -> None:
    from kubernetes import client

    try:
        define(place.cluster, KUEUE)
    except NoServerError as reason:
        pytest.skip(str(reason))
    group, version = "kueue.x-k8s.io", "v1beta2"
    queue = {
        "apiVersion": f"{group}/{version}",
        "kind": "LocalQueue",
        "metadata": {"name": "mine"},
        "spec": {"clusterQueue": "any"},
    }
    objects = client.CustomObjectsApi(place.cluster.api)
    objects.create_namespaced_custom_object(group, version, place.namespace, "localqueues", queue)
    place.write_options(labels={"kueue.x-k8s.io/queue-name": "mine"})

    _, found = place.doctor("--no-pods")

    (finding,) = found["queue"]
    assert (finding["state"], finding["words"]) == ("ok", "mine")


def test_a_plan_that_would_fail_is_refused_with_all_that_is_wrong(
    place: Place, environment: pytest.MonkeyPatch
) -> None:
    write_quota(place, {"requests.cpu": "100m"})
    place.write_options(service_account="nobody")
    plan = build_plan(load_recipe("linear"), Options(scale="digits"))
    cluster = Cluster(cluster_options([f"namespace={place.namespace}"]))

    with pytest.raises(MocoError) as refused:
        require(cluster, plan)

    lines = str(refused.value).splitlines()
    assert refused.value.exit_code == ExitCode.LOST_CLUSTER
    first = f"service account: namespace {place.namespace} has no service account nobody"
    assert lines[0] == first
    assert any(line.startswith("quota: the quota small") for line in lines)
    assert "  → --cluster service_account=NAME" in lines
    place.write_options(service_account="default")
    place.cluster.core.delete_namespaced_resource_quota("small", place.namespace)
    require(Cluster(cluster_options([f"namespace={place.namespace}"])), plan)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--wait", "0"], "--wait 0"),
        (["--cluster", "store_secrt=x"], "did you mean 'store_secret'?"),
        (["linera"], "did you mean 'linear'?"),
        (["--parameter", "x"], "--parameter x: expected --parameter NAME=VALUE"),
    ],
)
def test_a_wrong_command_line_is_refused_before_anything_is_asked(
    wrong: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")

    assert main(["doctor", *wrong]) in (ExitCode.USAGE, ExitCode.BAD_CONFIG)

    captured = capsys.readouterr()
    assert words in captured.err
    assert not captured.out
