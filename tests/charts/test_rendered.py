"""What the chart makes of its values, without a cluster."""

import base64
import importlib.metadata
import ipaddress
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import yaml

from pipelines.backends.kubeflow.options import ClusterOptions
from tests.charts.chart import (
    CHART,
    NAMESPACE,
    VARIANTS,
    Document,
    of_kind,
    options,
    pods,
    rendered,
    the,
)
from tests.servers.helm import Helm, HelmFailed

every_variant = pytest.mark.parametrize("variant", VARIANTS)

STEP = {"moco-transfer/stage": "pretrain"}
WHOLE = ("resources", "limits")  # values that are what Kubernetes takes
PEER = {"moco-transfer/stage": "trainjob", "jobset.sigs.k8s.io/jobset-name": "a"}


def test_with_default_values_the_options_are_those_of_the_command_line(helm: Helm) -> None:
    assert options(rendered(helm)) == ClusterOptions(
        namespace=NAMESPACE, service_account="moco-transfer"
    )


@every_variant
def test_the_options_are_such_as_the_command_line_takes(helm: Helm, variant: str) -> None:
    given = options(rendered(helm, *VARIANTS[variant]))

    assert given.namespace == NAMESPACE


def test_values_become_options(helm: Helm) -> None:
    store = options(rendered(helm, *VARIANTS["store"]))
    gpus = options(rendered(helm, *VARIANTS["gpus"]))

    assert store.root == "s3://experiments/moco"
    assert store.store_endpoint == "https://s3.example:9443"
    assert store.store_region == "eu-central-1"
    assert store.store_ca == "store-ca"
    assert (store.access_key_field, store.secret_key_field) == (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
    )
    assert gpus.images["torch"].startswith("registry.example/moco-transfer/torch@sha256:")
    assert gpus.pull_secrets == ("registry",)
    assert gpus.gpus_per_node == 4
    assert gpus.node_selector == {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    assert [taint.key for taint in gpus.tolerations] == ["nvidia.com/gpu"]


def test_a_data_set_has_its_claim_and_one_made_here_is_kept(helm: Helm) -> None:
    documents = rendered(helm, *VARIANTS["datasets"])

    claims = of_kind(documents, "PersistentVolumeClaim")
    assert options(documents).claims == {
        "imagenet": "shared-imagenet",
        "inaturalist_2018": "inaturalist-2018",
    }
    assert list(claims) == ["inaturalist-2018"]
    assert _kept(claims["inaturalist-2018"])


def test_given_keys_are_in_the_secret_and_nowhere_else(helm: Helm) -> None:
    documents = rendered(helm, *VARIANTS["store"])

    secret = the(documents, "Secret", options(documents).store_secret)
    keys = {base64.b64decode(value).decode() for value in secret["data"].values()}
    assert keys == {"key-of-the-example", "secret-of-the-example"}
    assert _kept(secret)
    others = json.dumps([document for document in documents if document is not secret])
    for key in keys:
        assert key not in others
        assert base64.b64encode(key.encode()).decode() not in others


def test_keys_that_nobody_gave_are_random(helm: Helm) -> None:
    first, second = (
        the(rendered(helm, *VARIANTS["store-server"]), "Secret", "moco-transfer-store")["data"]
        for _ in range(2)
    )

    assert set(first) == {"accesskey", "secretkey"}
    assert first["accesskey"] != second["accesskey"]
    assert len(base64.b64decode(first["secretkey"])) == 40


@pytest.mark.parametrize("variant", ["store", "store-server"])
def test_the_launcher_finds_the_store_where_the_options_say_it_is(helm: Helm, variant: str) -> None:
    documents = rendered(helm, *VARIANTS[variant])
    given = options(documents)

    launcher = the(documents, "ConfigMap", "kfp-launcher")["data"]
    assert launcher["defaultPipelineRoot"] == given.root
    ((scheme, provider),) = yaml.safe_load(launcher["providers"]).items()
    settings = provider["default"]
    protocol = "http" if settings["disableSSL"] else "https"
    assert given.root.startswith(f"{scheme}://")
    assert given.store_endpoint == f"{protocol}://{settings['endpoint']}"
    assert settings["region"] == (given.store_region or "us-east-1")
    assert settings["forcePathStyle"] is True
    assert settings["credentials"] == {
        "fromEnv": False,
        "secretRef": {
            "secretName": given.store_secret,
            "accessKeyKey": given.access_key_field,
            "secretKeyKey": given.secret_key_field,
        },
    }


def test_the_runtime_and_the_queue_are_those_of_the_options(helm: Helm) -> None:
    trainer = rendered(helm, *VARIANTS["trainer"])
    kueue = rendered(helm, *VARIANTS["kueue"])

    assert list(of_kind(trainer, "TrainingRuntime")) == [options(trainer).trainer_runtime]
    queue = options(kueue).labels["kueue.x-k8s.io/queue-name"]
    local = the(kueue, "LocalQueue", queue)
    assert local["spec"] == {"clusterQueue": "gpus"}
    newer = ("--api-versions", "kueue.x-k8s.io/v1beta2")
    again = the(rendered(helm, *VARIANTS["kueue"], *newer), "LocalQueue", queue)
    versions = [one["apiVersion"].partition("/")[2] for one in (local, again)]
    assert versions == ["v1beta1", "v1beta2"]


def test_without_an_account_of_its_own_the_chart_gives_no_rights(helm: Helm) -> None:
    documents = rendered(helm, *VARIANTS["existing-account"])

    assert options(documents).service_account == "default-editor"
    assert not {"ServiceAccount", "Role", "RoleBinding"} & {d["kind"] for d in documents}


def test_a_quota_and_limits_are_as_given(helm: Helm) -> None:
    documents = rendered(helm, *VARIANTS["quota"])

    hard = the(documents, "ResourceQuota", "moco-transfer")["spec"]["hard"]
    (limits,) = the(documents, "LimitRange", "moco-transfer")["spec"]["limits"]
    assert hard["requests.nvidia.com/gpu"] == 16
    assert limits["type"] == "Container"
    assert limits["defaultRequest"] == {"cpu": "100m", "memory": "128Mi"}


@every_variant
def test_every_pod_passes_restricted(helm: Helm, variant: str) -> None:
    for name, pod in pods(rendered(helm, *VARIANTS[variant])):
        assert list(_faults(pod["spec"])) == [], name


def test_names_that_look_like_numbers_stay_names(helm: Helm) -> None:
    values = ("serviceAccount.name=1", "store.existingSecret=2", "server.namespace=3")
    documents = rendered(
        helm, *(part for value in values for part in ("--set-string", value)), *VARIANTS["trainer"]
    )

    assert "1" in of_kind(documents, "ServiceAccount")
    assert options(documents).store_secret == "2"
    (_, pod), *_ = pods([the(documents, "Pod", "moco-transfer-test-store")])
    assert pod["spec"]["serviceAccountName"] == "1"


def test_the_chart_has_the_version_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))

    assert chart["appVersion"] == importlib.metadata.version("moco-transfer")


# What the network lets through.


def test_steps_reach_what_they_need(helm: Helm) -> None:
    policies = rendered(helm)

    for namespace, port in [
        ("kubeflow", 8887),  # API of the pipeline server
        ("kubeflow", 8080),  # metadata
        ("kubeflow", 9000),  # the store's service
        ("kubeflow", 8333),  # and the pods behind it
    ]:
        assert _lets_out(policies, STEP, port, namespace=namespace), port
    assert _lets_out(policies, STEP, 53, namespace="kube-system", protocol="UDP")
    for port in (443, 6443):
        assert _lets_out(policies, STEP, port, address="10.96.0.1")


def test_steps_reach_nothing_else_and_nobody_reaches_them(helm: Helm) -> None:
    policies = rendered(helm)

    assert not _lets_out(policies, STEP, 3306, namespace="kubeflow")
    assert not _lets_out(policies, STEP, 8887, namespace="somewhere")
    assert not _lets_out(policies, STEP, 9000, namespace=NAMESPACE)
    assert not _lets_out(policies, STEP, 80, address="192.0.2.1")
    assert not _lets_in(policies, STEP, 29500, STEP)


def test_pods_that_are_no_steps_are_left_alone(helm: Helm) -> None:
    policies = rendered(helm, *VARIANTS["trainer"])

    assert _lets_out(policies, {"app": "ml-pipeline"}, 3306, namespace="kubeflow")
    assert _lets_in(policies, {"jobset.sigs.k8s.io/jobset-name": "other"}, 1, {"app": "any"})


def test_a_store_elsewhere_is_open_at_its_address_only(helm: Helm) -> None:
    policies = rendered(helm, *VARIANTS["store"])

    assert _lets_out(policies, STEP, 9443, address="192.0.2.7")
    assert not _lets_out(policies, STEP, 9443, address="198.51.100.7")
    assert not _lets_out(policies, STEP, 9000, namespace="kubeflow")


def test_pods_of_a_trainjob_reach_each_other(helm: Helm) -> None:
    policies = rendered(helm, *VARIANTS["trainer"])

    assert _lets_out(policies, PEER, 29500, pod=PEER)
    assert _lets_in(policies, PEER, 41234, PEER)
    assert not _lets_in(policies, PEER, 29500, STEP)
    assert not _lets_out(policies, STEP, 29500, pod=PEER)
    assert not _lets_out(rendered(helm), PEER, 29500, pod=PEER)


def test_pods_of_the_runtime_are_steps(helm: Helm) -> None:
    runtime = of_kind(rendered(helm, *VARIANTS["trainer"]), "TrainingRuntime").values()

    (pod,) = (pod for _, pod in pods(list(runtime)))
    assert set(STEP) <= set(pod["metadata"]["labels"])


def test_the_namespaces_own_store_is_open_to_it_and_to_the_server(helm: Helm) -> None:
    policies = rendered(helm, *VARIANTS["store-server"])
    store = the(policies, "StatefulSet", "moco-transfer-store")["spec"]["template"]["metadata"]

    assert _lets_out(policies, STEP, 9000, pod=store["labels"])
    assert _lets_in(policies, store["labels"], 9000, STEP)
    assert _lets_in(policies, store["labels"], 9000, {"app": "ml-pipeline"}, "kubeflow")
    assert not _lets_in(policies, store["labels"], 9000, {"app": "ml-pipeline"}, "somewhere")
    assert not _lets_in(policies, store["labels"], 9001, STEP)
    assert not _lets_out(policies, store["labels"], 443, address="192.0.2.1")


def test_the_network_is_left_alone_on_request(helm: Helm) -> None:
    assert not of_kind(rendered(helm, *VARIANTS["existing-account"]), "NetworkPolicy")


# Wrong values.


@pytest.mark.parametrize(
    ("value", "path", "words"),
    [
        ("gpu.perNode=0", "/gpu/perNode", "minimum"),
        ("gpu.pernode=4", "/gpu", "'pernode' not allowed"),
        ("gpus.perNode=4", "", "'gpus' not allowed"),
        ("store.endpoint=s3.example:9000", "/store/endpoint", "does not match"),
        ("store.root=gs://bucket/runs", "/store/root", "does not match"),
        ("store.createSecret=true", "/store/secretKey", "minLength"),
        ("store.server.enabled=true", "/store/server/image", "minLength"),
        ("store.server.env.A-B=1", "/store/server/env", "'A-B' not allowed"),
        ("datasets.imagenet.create=true", "/datasets/imagenet", "'size'"),
        ("datasets.imagenet.size=1Gi", "/datasets/imagenet", "'existingClaim'"),
        ("datasets.image-net.existingClaim=a", "/datasets", "'image-net' not allowed"),
        ("kueue.clusterQueue=gpus", "/kueue/queue", "minLength"),
        ("tolerations[0].key=gpu", "/tolerations/0", "'operator'"),
        ("store.server.size=64GB", "/store/server/size", "does not match"),
        ("networkPolicy.apiServer.cidrs[0]=10.0.0.1", "/networkPolicy/apiServer/cidrs/0", "match"),
        ("serviceAccount.name=Upper", "/serviceAccount/name", "does not match"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(
    helm: Helm, value: str, path: str, words: str
) -> None:
    with pytest.raises(HelmFailed) as refused:
        rendered(helm, "--set", value)

    faults = [line for line in str(refused.value).splitlines() if f"at '{path}'" in line]
    assert any(words in fault for fault in faults), str(refused.value)


def test_every_value_has_a_rule_and_a_line_in_the_readme() -> None:
    values = dict(_leaves(yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))))
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    lines = re.findall(
        r"^\| `([^`]+)` \| `([^`]+)` \|", (CHART / "README.md").read_text("utf-8"), re.MULTILINE
    )

    assert set(_rules(schema)) == {*values, "global"}
    assert {name: json.loads(default) for name, default in lines} == values


def _kept(document: Document) -> bool:
    annotations: Mapping[str, str] = document["metadata"]["annotations"]
    return annotations["helm.sh/resource-policy"] == "keep"


def _faults(spec: Document) -> Iterator[str]:
    """Say what keeps a pod from the Pod Security Standard *restricted*."""
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
    for volume in spec.get("volumes", ()):
        if not set(volume) - {"name"} <= allowed:
            yield f"volume {volume}"
    if any(spec.get(field) for field in ("hostNetwork", "hostPID", "hostIPC")):
        yield "the host's name spaces"
    identity = spec.get("securityContext", {})
    for container in [*spec["containers"], *spec.get("initContainers", ())]:
        own = container.get("securityContext", {})
        context = {**identity, **own}
        if not (context.get("runAsNonRoot") and context.get("runAsUser")):
            yield "may be root"
        if own.get("allowPrivilegeEscalation") is not False:
            yield "may become root"
        if own.get("capabilities") != {"drop": ["ALL"]}:
            yield "capabilities"
        if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield "seccomp"


def _rules(schema: Document, prefix: str = "") -> Iterator[str]:
    for name, rule in schema["properties"].items():
        if "properties" in rule and name not in WHOLE:
            yield from _rules(rule, f"{prefix}{name}.")
        else:
            yield prefix + name


def _leaves(values: Document, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value and name not in WHOLE:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _lets_out(
    documents: Sequence[Document],
    labels: Mapping[str, str],
    port: int,
    *,
    namespace: str | None = None,
    address: str | None = None,
    pod: Mapping[str, str] | None = None,
    protocol: str = "TCP",
) -> bool:
    """Tell whether a pod of the namespace may talk to a pod elsewhere, here, or to an address."""
    peer = {"namespace": namespace or NAMESPACE, "labels": pod or {}, "address": address}
    return _lets(documents, "Egress", labels, peer, port, protocol)


def _lets_in(
    documents: Sequence[Document],
    labels: Mapping[str, str],
    port: int,
    peer: Mapping[str, str],
    namespace: str = NAMESPACE,
) -> bool:
    """Tell whether a pod of the namespace may be talked to by another."""
    caller = {"namespace": namespace, "labels": peer, "address": None}
    return _lets(documents, "Ingress", labels, caller, port, "TCP")


def _lets(
    documents: Sequence[Document],
    direction: str,
    labels: Mapping[str, str],
    peer: Mapping[str, Any],
    port: int,
    protocol: str,
) -> bool:
    """Apply network policies as Kubernetes defines them: those that select a pod add up."""
    selecting = [
        policy["spec"]
        for policy in of_kind(documents, "NetworkPolicy").values()
        if direction in policy["spec"]["policyTypes"]
        and _selects(policy["spec"]["podSelector"], labels)
    ]
    if not selecting:
        return True
    side = {"Egress": "to", "Ingress": "from"}[direction]
    return any(
        any(_is_peer(one, peer) for one in rule[side])
        and (
            "ports" not in rule
            or any((one["protocol"], one["port"]) == (protocol, port) for one in rule["ports"])
        )
        for policy in selecting
        for rule in policy.get(direction.lower()) or ()
    )


def _is_peer(selector: Document, peer: Mapping[str, Any]) -> bool:
    if "ipBlock" in selector:
        block = ipaddress.ip_network(selector["ipBlock"]["cidr"])
        return peer["address"] is not None and ipaddress.ip_address(peer["address"]) in block
    if peer["address"] is not None:
        return False
    namespace = {"kubernetes.io/metadata.name": peer["namespace"]}
    of_namespace = (
        _selects(selector["namespaceSelector"], namespace)
        if "namespaceSelector" in selector
        else peer["namespace"] == NAMESPACE
    )
    return of_namespace and _selects(selector.get("podSelector", {}), peer["labels"])


def _selects(selector: Document, labels: Mapping[str, str]) -> bool:
    wanted = selector.get("matchLabels", {})
    expressions = selector.get("matchExpressions", [])
    assert all(one["operator"] == "Exists" for one in expressions)
    return wanted.items() <= dict(labels).items() and all(
        one["key"] in labels for one in expressions
    )
