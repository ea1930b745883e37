"""What `moco doctor` says of a real cluster, sound and with each fault that a new user meets."""

import http.server
import json
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.core.errors import ExitCode, MocoError
from pipelines.__main__ import main
from pipelines.backends.cluster import ClusterOptions, Toleration, pipeline_parameters
from pipelines.cluster.connection import Cluster, cluster_options
from pipelines.cluster.doctor import CHECKS, Site, require
from pipelines.cluster.doctor.room import Need, Node, _node, needs
from pipelines.cluster.doctor.server import _host
from pipelines.recipes import Options, ScaleName, build_plan, load_recipe
from tests.servers.cluster import TestCluster, restricted_pod, wait_for
from tests.servers.go import NoServerError
from tests.servers.helm import Helm
from tests.servers.kueue import KUEUE
from tests.servers.minio import MinioServer
from tests.servers.trainer import define

CHART = Path(__file__).parents[2] / "charts" / "moco-transfer"
SECRET_NAME = "store-keys"
DIGITS = ("linear", "--scale", "digits")
SOUND = {"multi_user": True, "tag_name": "2.17.0", "commit_sha": "unknown"}

pytestmark = pytest.mark.timeout(900)


@dataclass
class Place:
    """A namespace that is ready for runs, and the command line of a user there."""

    cluster: TestCluster
    namespace: str
    minio: MinioServer
    bucket: str
    options: dict[str, Any]
    capsys: pytest.CaptureFixture[str]
    printed: str = field(default="", repr=False)

    def write_options(self, **changes: Any) -> None:
        """Write the config map of the chart anew."""
        self.options |= changes
        name = "moco-transfer"
        body = {"metadata": {"name": name}, "data": {"cluster.json": json.dumps(self.options)}}
        self.cluster.core.replace_namespaced_config_map(name, self.namespace, body)

    def doctor(self, *arguments: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
        """Run the command; return its exit code, and what was found by check."""
        named = ("--cluster", f"namespace={self.namespace}")
        code = main(["doctor", *arguments, *named, "--json"])
        captured = self.capsys.readouterr()
        self.printed = captured.out + captured.err
        assert self.minio.secret_key not in self.printed
        document = json.loads(captured.out)
        assert document["exit_code"] == code, captured.err
        found: dict[str, list[dict[str, Any]]] = {}
        for one in document["findings"]:
            found.setdefault(one["check"], []).append(one)
        return code, found

    def fault(self, check: str, *arguments: str) -> tuple[int, str, str]:
        """Run the command, which must fail first at a check; return code, words and ways out."""
        code, found = self.doctor(*arguments)
        failures = [one for ones in found.values() for one in ones if one["state"] == "failed"]
        assert failures, found
        assert failures[0]["check"] == check, failures
        assert failures[0]["code"] == code
        return code, failures[0]["words"], "\n".join(failures[0]["way_out"])

    def passes(self, *arguments: str) -> dict[str, list[dict[str, Any]]]:
        """Run the command, which must find nothing that fails; return what it found by check."""
        code, found = self.doctor(*arguments)
        failures = [one for ones in found.values() for one in ones if one["state"] == "failed"]
        assert not failures, "\n".join(one["words"] for one in failures)
        assert code == 0
        return found

    def write_secret(self, **content: str) -> None:
        """Write the store's secret anew."""
        body = {"metadata": {"name": SECRET_NAME}, "stringData": content}
        self.cluster.core.delete_namespaced_secret(SECRET_NAME, self.namespace)
        self.cluster.core.create_namespaced_secret(self.namespace, body)

    def pods(self) -> list[str]:
        """Return the names of the pods that a doctor left."""
        listed = self.cluster.core.list_namespaced_pod(self.namespace)
        return [one.metadata.name for one in listed.items if "doctor" in one.metadata.name]


@contextmanager
def pipeline_server(health: dict[str, Any] | str) -> Iterator[str]:
    """Answer like a pipeline server that is asked for its health; give its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = (health if isinstance(health, str) else json.dumps(health)).encode()
            known = self.path == "/apis/v2beta1/healthz"
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body if known else b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


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


def use_kubeconfig(environment: pytest.MonkeyPatch, path: Path) -> None:
    """Let this process use a kubeconfig; the client reads the variable when it is imported."""
    environment.setenv("KUBECONFIG", str(path))
    environment.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))


def kubeconfig_with(
    cluster: TestCluster, path: Path, user: dict[str, Any], server: str | None = None
) -> Path:
    """Write a kubeconfig of another user, or of another server."""
    document = yaml.safe_load(cluster.kubeconfig.read_text())
    document["users"][0]["user"] = user
    if server:
        document["clusters"][0]["cluster"]["server"] = server
    path.write_text(yaml.safe_dump(document))
    return path


# A sound cluster


def test_a_sound_cluster_passes_from_inside_too(place: Place, pod_image: str) -> None:
    place.write_options(images={"torch": pod_image})

    found = place.passes(*DIGITS)

    assert set(found) >= {check.name for check in CHECKS} - {"queue", "trainer", "claims"} - {
        "data sets"
    }
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


# The way to the cluster


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


# The pipeline server. No older release can be had here, so a server that only tells its health
# stands in for one; `MOCO_TEST_KFP` names the URL of a real one of this release.


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


# The store


def test_a_secret_without_the_key_is_told_what_it_has(place: Place) -> None:
    place.write_secret(accesskey="x", password=place.minio.secret_key)

    code, words, way_out = place.fault("secret", "--no-pods")

    assert code == ExitCode.LOST_CLUSTER
    assert words == (
        f"the secret {SECRET_NAME} of namespace {place.namespace} has no key secretkey; "
        "it has accesskey, password"
    )
    assert way_out == "--cluster secret_key_field=KEY"


def test_wrong_keys_are_refused_by_their_id(place: Place) -> None:
    place.write_secret(accesskey=place.minio.access_key, secretkey="canary-of-the-store")

    code, words, _ = place.fault("store", "--no-pods")

    assert code == ExitCode.LOST_STORE
    assert place.minio.access_key in words
    assert "canary-of-the-store" not in place.printed


def test_a_bucket_that_is_missing_is_named(place: Place) -> None:
    place.write_options(root="minio://nobody-made-this-bucket/v2")

    code, words, way_out = place.fault("store", "--no-pods")

    assert code == ExitCode.LOST_STORE
    assert "NoSuchBucket" in words
    assert "nobody-made-this-bucket" in words
    assert "--cluster root=" in way_out


def test_a_bucket_that_may_only_be_read_is_told_so_from_here_and_from_a_pod(
    place: Place, pod_image: str
) -> None:
    place.write_options(images={"torch": pod_image})
    actions = ["s3:ListBucket", "s3:GetBucketLocation", "s3:GetObject"]
    key, secret = place.minio.add_user(place.bucket, actions)
    place.write_secret(accesskey=key, secretkey=secret)

    code, words, _ = place.fault("store")

    assert code == ExitCode.NO_PERMISSION
    assert "may be read, but not written" in words
    assert key in words
    _, found = place.doctor()
    (inside,) = found["store in pods"]
    assert "may be read, but not written" in inside["words"]
    assert inside["code"] == ExitCode.NO_PERMISSION
    assert secret not in place.printed


def test_a_store_that_only_this_machine_reaches_fails_in_the_pod(
    place: Place, environment: pytest.MonkeyPatch, pod_image: str
) -> None:
    environment.setenv("MOCO_S3_ENDPOINT", place.minio.endpoint)
    place.write_options(images={"torch": pod_image}, store_endpoint="http://nobody.nowhere:9000")

    code, words, way_out = place.fault("store in pods")

    assert code == ExitCode.LOST_STORE
    assert "http://nobody.nowhere:9000" in words
    assert "--cluster store_endpoint=" in way_out


def test_a_store_that_only_pods_reach_gets_a_port_forwarded(place: Place) -> None:
    place.write_options(store_endpoint="http://seaweedfs.kubeflow:9000")

    code, _, way_out = place.fault("store", "--no-pods")

    assert code == ExitCode.LOST_STORE
    assert "kubectl port-forward --namespace kubeflow service/seaweedfs 9000" in way_out
    assert "MOCO_S3_ENDPOINT=http://127.0.0.1:9000" in way_out


# Pods


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


# What a recipe needs


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


# Nodes, as Kubernetes describes them


@pytest.mark.parametrize(
    ("changes", "options", "closed"),
    [
        ({}, {}, ""),
        ({"ready": "False"}, {}, "it is not ready"),
        ({"labels": {"pool": "cpu"}}, {"node_selector": {"pool": "gpu"}}, "has no label pool=gpu"),
        ({"taint": "NoSchedule"}, {}, "it has the taint gpu=yes:NoSchedule"),
        ({"taint": "PreferNoSchedule"}, {}, ""),
        ({"taint": "NoExecute"}, {"tolerations": (Toleration(key="gpu"),)}, ""),
        ({"taint": "NoSchedule"}, {"tolerations": (Toleration(),)}, ""),
        (
            {"taint": "NoSchedule"},
            {"tolerations": (Toleration(key="gpu", operator="Equal", value="no"),)},
            "taint",
        ),
        (
            {"taint": "NoExecute"},
            {"tolerations": (Toleration(key="gpu", effect="NoSchedule"),)},
            "taint",
        ),
    ],
)
def test_nodes_that_pods_may_not_run_on_are_left_out(
    changes: dict[str, Any], options: dict[str, Any], closed: str
) -> None:
    from kubernetes import client

    taint = changes.get("taint")
    node = client.V1Node(
        metadata=client.V1ObjectMeta(name="n", labels=changes.get("labels")),
        spec=client.V1NodeSpec(
            taints=[client.V1Taint(key="gpu", value="yes", effect=taint)] if taint else None
        ),
        status=client.V1NodeStatus(
            allocatable={"cpu": "7500m", "memory": "16Gi"},
            conditions=[client.V1NodeCondition(type="Ready", status=changes.get("ready", "True"))],
        ),
    )

    found = _node(node, ClusterOptions(**options))

    assert closed in found.closed
    assert bool(closed) == bool(found.closed)
    assert found.amounts == {"cpu": Decimal("7.5"), "memory": Decimal(16 << 30)}


def test_a_node_lacks_what_it_has_too_little_of() -> None:
    node = Node("n", {"cpu": Decimal(4), "memory": Decimal(8)})

    assert node.lacks(Need("x", {"cpu": Decimal(4), "memory": Decimal(9)}, {})) == {"memory": 8}
    assert node.lacks(Need("x", {"gpu": Decimal(1)}, {})) == {"gpu": 0}


# Helpers


def pin_image(place: Place) -> None:
    """Name an image by a digest, so that what comes after that check is seen."""
    place.write_options(images={"torch": f"registry.invalid/moco@sha256:{'0' * 64}"})


def write_quota(place: Place, hard: dict[str, str]) -> None:
    """Make a quota, and wait until it counts."""
    core = place.cluster.core
    core.create_namespaced_resource_quota(
        place.namespace, {"metadata": {"name": "small"}, "spec": {"hard": hard}}
    )

    def counts() -> Any:
        return core.read_namespaced_resource_quota("small", place.namespace).status.used

    wait_for("the quota to count", counts)


def make_claim(place: Place, name: str, storage_class: str | None = None) -> None:
    """Make a claim, and wait until it is bound, unless its class waits for a pod."""
    core = place.cluster.core
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    named = {"storageClassName": storage_class} if storage_class else {}
    core.create_namespaced_persistent_volume_claim(
        place.namespace, {"metadata": {"name": name}, "spec": {**spec, **named}}
    )

    def phase() -> Any:
        claim = core.read_namespaced_persistent_volume_claim(name, place.namespace)
        return claim.status.phase == ("Pending" if storage_class else "Bound")

    wait_for(f"the claim {name}", phase)


def fill_claim(place: Place, image: str, claim: str) -> None:
    """Write two classes of two splits into a claim."""
    program = (
        "import pathlib\n"
        "for split in ('train', 'val'):\n"
        "    for name in ('n1', 'n2'):\n"
        "        file = pathlib.Path('/data', split, name, 'x.JPEG')\n"
        "        file.parent.mkdir(parents=True)\n"
        "        file.write_bytes(b'\\xff\\xd8\\xff\\xe0' + b'0' * 64 + b'\\xff\\xd9')\n"
    )
    mount = {"name": "data", "mountPath": "/data"}
    pod = restricted_pod("fill", image, ["python", "-c", program], volumeMounts=[mount])
    pod["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
    code, words = place.cluster.run_pod(place.namespace, pod)
    assert code == 0, words


def roomy_arguments(gpus: int = 8) -> tuple[str, ...]:
    """Make steps small enough for any node but for their GPUs."""
    plan = build_plan(load_recipe("linear"), Options())
    cluster = ClusterOptions(accelerator="any")
    sizes = {"cpus": "1", "memory": "1Gi", "gpus": str(gpus)}
    return tuple(
        word
        for parameter in pipeline_parameters(plan, cluster)
        for kind, value in sizes.items()
        if parameter.name.startswith(f"{kind}_")
        for word in ("--parameter", f"{parameter.name}={value}")
    )


def largest_stage(scale: ScaleName = "full") -> str:
    """Return the stage that asks for most."""
    plan = build_plan(load_recipe("linear"), Options(scale=scale))
    return needs(Site(Cluster(ClusterOptions()), plan))[0].stage


@contextmanager
def gpus(cluster: TestCluster, count: int) -> Iterator[str]:
    """Let the first node have GPUs of a kind of our own, as a device plugin would say it."""
    name = f"moco-test.example/{secrets.token_hex(4)}"
    path = f"/status/capacity/{name.replace('/', '~1')}"
    node = cluster.core.list_node().items[0].metadata.name
    patch: Callable[..., Any] = cluster.core.patch_node_status
    patch(node, [{"op": "add", "path": path, "value": str(count)}])
    try:

        def has() -> bool:
            return name in cluster.core.read_node(node).status.allocatable

        wait_for(f"{name} on {node}", has)
        yield name
    finally:
        patch(node, [{"op": "remove", "path": path}])
