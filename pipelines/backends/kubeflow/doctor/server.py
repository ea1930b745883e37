"""Checks Kubeflow Pipelines: its server, and what it will do with our runs."""

import importlib.metadata
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from components.core.errors import ClusterError, ConfigError, ExitCode
from pipelines.backends.findings import Finding
from pipelines.backends.kubeflow.doctor.access import Right, _numbers, may
from pipelines.backends.kubeflow.doctor.findings import (
    FaultError,
    MissingError,
    RefusedError,
    failed,
    ok,
    skipped,
    warning,
)
from pipelines.backends.kubeflow.doctor.site import Site, grant
from pipelines.backends.kubeflow.server import TRIED, Server

CONTROLLER = "workflow-controller-configmap"
LAUNCHER = "kfp-launcher"
# What a server and a launcher do that nobody told otherwise.
STOCK_ENDPOINT = "seaweedfs.kubeflow:9000"
STOCK_ACCOUNTS = {False: "pipeline-runner", True: "default-editor"}
ADDRESS = ("--cluster server=URL", "--cluster server_namespace=NAME")

# What Argo's policies mean for a step that exits with an error, and for a pod that is lost.
POLICIES = {
    "OnError": (False, True),
    "OnFailure": (True, False),
    "Always": (True, True),
    "OnTransientError": (False, False),
}


def server(site: Site) -> Iterator[Finding]:
    """Check that the pipeline server answers, and knows all that our version sends."""
    health = _health(site)
    site.multi_user = bool(health.get("multi_user"))
    users = "for many users" if site.multi_user else "for one user"
    name, tag = site.cluster.server_name, str(health.get("tag_name") or "unknown")
    ours = importlib.metadata.version("kfp")
    release = ".".join(map(str, _numbers(ours)))
    tried = f"moco was tried with {' and '.join(TRIED)}"
    if not _numbers(tag):
        yield warning(
            f"{name} does not say its version ({tag}); it must be {release} or newer",
            "look in its web page, below on the left",
        )
    elif _numbers(tag) < _numbers(ours):
        raise FaultError(
            f"{name} is Kubeflow Pipelines {tag}, older than the {release} that runs are written "
            f"for (kfp {ours}): it would refuse fields that it does not know, or ignore them",
            f"upgrade the server to {release} or newer: kubectl apply -k "
            "'https://github.com/kubeflow/pipelines/manifests/kustomize/env/platform-agnostic"
            f"?ref={release}.0', or however it was installed",
        )
    elif _numbers(tag)[0] > _numbers(ours)[0]:
        yield warning(
            f"{name} is Kubeflow Pipelines {tag}, a generation after kfp {ours}; {tried}",
            "try it with: moco submit appendix --scale digits",
        )
    else:
        known = ".".join(map(str, _numbers(tag))) in TRIED
        words = f"Kubeflow Pipelines {tag} at {name}, {users}"
        yield ok(words if known else f"{words}; {tried}")
    yield from _place_of_runs(site)


def retries(site: Site) -> Iterator[Finding]:
    """Say what the platform retries, which its own default decides and not the pipeline."""
    place = site.options.server_namespace
    try:
        config_map = site.ask(
            f"read the config map {CONTROLLER} of {place}",
            site.cluster.core.read_namespaced_config_map,
            CONTROLLER,
            place,
        )
    except (MissingError, RefusedError) as error:
        yield skipped(f"not known what is retried: {error}")
        return
    defaults = _yaml(config_map, "workflowDefaults").get("spec") or {}
    strategy = (defaults.get("templateDefaults") or {}).get("retryStrategy") or {}
    policy = str(strategy.get("retryPolicy") or "OnFailure")
    steps, pods = POLICIES.get(policy, (False, False))
    words = (
        f"a step that fails with an exit code is {'' if steps else 'not '}retried, "
        f"a pod that is lost {'is' if pods else 'is not'} "
        f"(retryPolicy {policy} in {place}/{CONTROLLER})"
    )
    if pods:
        yield ok(words)
        return
    yield warning(
        words,
        f"kubectl edit configmap {CONTROLLER} --namespace {place}: under workflowDefaults, "
        "spec.templateDefaults.retryStrategy.retryPolicy: OnError",
        "moco rerun RUN --failed, when a pod was lost",
    )


def service_account(site: Site) -> Iterator[Finding]:
    """Check that the account that the pods of runs will have exists."""
    name = site.options.service_account
    if name is None and site.multi_user is None:
        yield skipped("which one the server gives to runs is not known")
        return
    account = name or STOCK_ACCOUNTS[bool(site.multi_user)]
    try:
        site.ask(
            f"look up the service account {account} of {site.namespace}",
            site.cluster.core.read_namespaced_service_account,
            account,
            site.namespace,
        )
    except RefusedError as error:
        yield skipped(str(error))
    except MissingError:
        words = f"namespace {site.namespace} has no service account {account}"
        choose = "--cluster service_account=NAME"
        listing = f"kubectl get serviceaccounts --namespace {site.namespace}"
        if name is None:
            yield warning(f"{words}, which runs get from a stock server", choose, listing)
        else:
            raise FaultError(words, choose, listing) from None
    else:
        yield ok(account if name else f"{account}, the server's default")


def launcher(site: Site) -> Iterator[Finding]:
    """Check that steps' outputs go to the store where checkpoints and `moco pull` look."""
    try:
        config_map = site.ask(
            f"read the config map {LAUNCHER} of {site.namespace}",
            site.cluster.core.read_namespaced_config_map,
            LAUNCHER,
            site.namespace,
        )
    except RefusedError as error:
        yield skipped(str(error))
        return
    except MissingError:
        config_map = None
    source = LAUNCHER if config_map else f"stock, for there is no {LAUNCHER}"
    endpoint = _endpoint(config_map, urlsplit(site.options.root).scheme)
    ours = site.options.store_endpoint
    if endpoint and _host(endpoint) != _host(ours):
        yield warning(
            f"steps write to the store at {endpoint} ({source}), but read checkpoints from {ours}; "
            "these must be one store",
            f"--cluster store_endpoint={urlsplit(ours).scheme}://{_host(endpoint)}",
            f"kubectl edit configmap {LAUNCHER} --namespace {site.namespace}",
        )
        return
    root = (config_map.data or {}).get("defaultPipelineRoot") if config_map else None
    if root and root.rstrip("/") != site.options.root.rstrip("/"):
        yield warning(
            f"runs of others go to {root} ({LAUNCHER}), those of moco to {site.options.root}",
            f"--cluster root={root}",
        )
        return
    yield ok(f"outputs go to {site.options.root} at {endpoint or 'the provider of the cloud'}")


def _health(site: Site) -> dict[str, Any]:
    """Ask the server about itself."""
    name = site.cluster.server_name
    ways = (*ADDRESS, "export MOCO_KFP_TOKEN=TOKEN") if site.options.server else ADDRESS
    try:
        answer = Server(site.cluster).health()
    except ClusterError as error:
        raise FaultError(str(error), *ways) from None
    if not isinstance(answer, dict) or not {"tag_name", "multi_user"} & set(answer):
        raise FaultError(
            f"{name} answers, but not as Kubeflow Pipelines does: a login page, or another server",
            *ways,
        )
    return answer


def _place_of_runs(site: Site) -> Iterator[Finding]:
    """Check that the server will start pods in the namespace that everything else is about."""
    place, own = site.namespace, site.options.server_namespace
    if site.multi_user:
        if not may(site, Right("create", "runs", "moco submit", "pipelines.kubeflow.org"), place):
            yield failed(
                f"{site.user or 'this user'} may not create runs in namespace {place}",
                "ask an administrator: "
                + grant(site.user or "USER", place, "kubeflow-pipelines-edit"),
                code=ExitCode.NO_PERMISSION,
            )
    elif place != own:
        yield failed(
            f"the server is for one user: its pods run in its own namespace, {own}, and not in "
            f"{place}",
            f"helm install moco-transfer charts/moco-transfer --namespace {own}",
            f"--cluster namespace={own}",
            f"--cluster server_namespace={place}, if the server is there",
        )


def _endpoint(config_map: Any, scheme: str) -> str | None:
    """Return where a launcher finds the store of a URL; None if that is a cloud's own."""
    providers = _yaml(config_map, "providers") if config_map else {}
    provider = providers.get(scheme) or {}
    default = provider.get("default") or {}
    if scheme == "minio" and not provider:
        return STOCK_ENDPOINT
    return default.get("endpoint") or None


def _host(endpoint: str) -> str:
    """Return `HOST:PORT`, the names of a cluster's services in their short form."""
    parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
    host = (parts.hostname or "").removesuffix(".cluster.local").removesuffix(".svc")
    return f"{host}:{parts.port}" if parts.port else host


def _yaml(config_map: Any, key: str) -> dict[str, Any]:
    """Read the YAML below a key of a config map.

    Raises:
        ConfigError: if it is none.
    """
    import yaml

    try:
        document = yaml.safe_load((config_map.data or {}).get(key) or "{}")
    except yaml.YAMLError as error:
        raise ConfigError(f"config map {config_map.metadata.name}, {key}: {error}") from None
    return document if isinstance(document, dict) else {}
