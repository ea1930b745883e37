"""Checks the way to the cluster: packages, credentials, the namespace and what is in it."""

import importlib.metadata
import re
from collections.abc import Iterator
from dataclasses import dataclass

from components.core.errors import ClusterError, ExitCode
from pipelines.backends.findings import Finding
from pipelines.backends.kubeflow.connection import CONFIG_MAP
from pipelines.backends.kubeflow.doctor.findings import (
    FaultError,
    MissingError,
    RefusedError,
    UnknownUserError,
    failed,
    ok,
    skipped,
    warning,
)
from pipelines.backends.kubeflow.doctor.site import Site, grant
from pipelines.backends.kubeflow.options import ClusterOptions

PACKAGES = ("kfp", "kfp-kubernetes", "kubernetes")
OLDEST = (1, 27)  # Kubernetes that Kubeflow Pipelines 2.17 is released for
CHART = "charts/moco-transfer"
# Options that say where the cluster is, not what is in it.
WHEREABOUTS = ("context", "namespace", "server", "server_namespace", "cache")
ENFORCE = "pod-security.kubernetes.io/enforce"


@dataclass(frozen=True)
class Right:
    """What a user must be allowed, and the commands that cannot do without."""

    verb: str
    resource: str
    why: str
    group: str = ""
    needed: bool = True

    def __str__(self) -> str:
        return f"{self.verb} {self.resource} ({self.why})"


RIGHTS = (
    Right("list", "pods", "moco status"),
    Right("get", "pods/log", "moco logs"),
    Right("list", "events", "why pods wait", needed=False),
    Right("list", "workflows", "why steps failed", "argoproj.io", needed=False),
)
POD_RIGHTS = (
    Right("create", "pods", "moco doctor; --no-pods does without"),
    Right("get", "pods", "moco doctor; --no-pods does without"),
    Right("delete", "pods", "moco doctor; --no-pods does without"),
)
PROXY_RIGHTS = (
    Right("get", "services/proxy", "the pipeline server, but for --cluster server=URL"),
    Right("create", "services/proxy", "the pipeline server, but for --cluster server=URL"),
)


def packages(_: Site) -> Iterator[Finding]:
    """Check that what talks to the cluster is installed."""
    versions = {name: _version(name) for name in PACKAGES}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        raise FaultError(
            f"not installed: {', '.join(missing)}",
            "pip install 'moco-transfer[kubeflow]'",
            code=ExitCode.USAGE,
        )
    yield ok(", ".join(f"{name} {version}" for name, version in versions.items()))


def cluster(site: Site) -> Iterator[Finding]:
    """Check that the Kubernetes API answers, and is not too old."""
    from kubernetes import client

    api = client.VersionApi(site.cluster.kubernetes)
    host = site.cluster.kubernetes.configuration.host
    context = site.options.context or _current_context()
    try:
        version = site.ask(f"ask {host} for its version", api.get_code)
    except (RefusedError, UnknownUserError):  # it does answer; the next check is about that
        yield ok(f"{host} answers (context: {context})")
        return
    except ClusterError as error:
        raise FaultError(
            f"{error}; context: {context}",
            "kubectl config get-contexts",
            "--cluster context=NAME",
            "KUBECONFIG=FILE",
        ) from None
    words = f"Kubernetes {version.git_version.removeprefix('v')} at {host} (context: {context})"
    if _numbers(version.git_version) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        yield warning(f"{words}; Kubeflow Pipelines 2.17 wants {oldest}", "upgrade the cluster")
    else:
        yield ok(words)


def credentials(site: Site) -> Iterator[Finding]:
    """Check that the cluster knows who asks."""
    from kubernetes import client

    api = client.AuthenticationV1Api(site.cluster.kubernetes)
    try:
        review = site.ask(
            "ask the cluster who this user is",
            api.create_self_subject_review,
            client.V1SelfSubjectReview(),
        )
    except MissingError:
        yield skipped("this version of Kubernetes does not say who a user is")
        return
    except RefusedError:
        raise FaultError(
            "the cluster takes this user for nobody: the kubeconfig has no credentials",
            "kubectl config view --minify",
        ) from None
    site.user = review.status.user_info.username
    yield ok(site.user)


def options(site: Site) -> Iterator[Finding]:
    """Read what the chart says of the namespace, as every command does."""
    site.settle()
    site.values()
    yield ok(f"namespace {site.namespace}, runs below {site.options.root}")


def namespace(site: Site) -> Iterator[Finding]:
    """Check that the namespace exists, and say what it enforces."""
    name = site.namespace
    try:
        described = site.ask(
            f"look up the namespace {name}", site.cluster.core.read_namespace, name
        )
    except RefusedError:
        yield skipped(f"{name}: {site.user or 'this user'} may not look it up")
        return
    except MissingError:
        raise FaultError(
            f"there is no namespace {name}",
            f"kubectl create namespace {name}",
            "--cluster namespace=NAME",
        ) from None
    if described.metadata.deletion_timestamp:
        raise FaultError(f"the namespace {name} is being deleted", "--cluster namespace=NAME")
    enforced = (described.metadata.labels or {}).get(ENFORCE)
    yield ok(f"{name}, pod security {enforced} enforced" if enforced else name)


def chart(site: Site) -> Iterator[Finding]:
    """Check that the chart is installed in the namespace."""
    name = site.namespace
    install = f"helm install moco-transfer {CHART} --namespace {name}"
    try:
        config_map = site.ask(
            f"read the config map {CONFIG_MAP} of {name}",
            site.cluster.core.read_namespaced_config_map,
            CONFIG_MAP,
            name,
        )
    except MissingError:
        words = f"namespace {name} has no config map {CONFIG_MAP}: the chart is not installed there"
        own = _own_options(site)
        if not own:
            raise FaultError(words, install, "--cluster namespace=NAME") from None
        yield warning(f"{words}; what is given of {', '.join(own)} stands in for it", install)
        return
    labels = config_map.metadata.labels or {}
    yield ok(labels.get("helm.sh/chart") or f"config map {CONFIG_MAP}, not written by Helm")


def rights(site: Site) -> Iterator[Finding]:
    """Check what this user may do, with the commands that need it."""
    wanted = [(right, site.namespace) for right in (*RIGHTS, *_pod_rights(site))]
    if site.options.server is None:
        wanted += [(right, site.options.server_namespace) for right in PROXY_RIGHTS]
    denied = [(right, place) for right, place in wanted if not may(site, right, place)]
    user = site.user or "this user"
    for place in dict.fromkeys(place for _, place in denied):
        for needed in (True, False):
            names = [str(right) for right, at in denied if at == place and right.needed == needed]
            if not names:
                continue
            words = f"{user} may not in namespace {place}: {', '.join(names)}"
            way_out = f"ask an administrator: {grant(site.user or 'USER', place)}"
            if needed:
                yield failed(words, way_out, code=ExitCode.NO_PERMISSION)
            else:
                yield warning(words, way_out)
    if not denied:
        yield ok(f"{user} may do all that the commands need")


def may(site: Site, right: Right, namespace: str) -> bool:
    """Ask the cluster whether this user is allowed something."""
    from kubernetes import client

    resource, _, subresource = right.resource.partition("/")
    attributes = client.V1ResourceAttributes(
        namespace=namespace,
        verb=right.verb,
        group=right.group,
        resource=resource,
        subresource=subresource or None,
    )
    review = site.ask(
        "ask what this user may do",
        client.AuthorizationV1Api(site.cluster.kubernetes).create_self_subject_access_review,
        client.V1SelfSubjectAccessReview(
            spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
        ),
    )
    return bool(review.status.allowed)


def _current_context() -> str:
    from kubernetes import config

    try:
        return str(config.list_kube_config_contexts()[1]["name"])
    except (config.ConfigException, TypeError):
        return "none, the account of this pod"


def _pod_rights(site: Site) -> tuple[Right, ...]:
    return POD_RIGHTS if site.pods else ()


def _own_options(site: Site) -> list[str]:
    """Return the options by which somebody described a namespace without the chart."""
    stock = ClusterOptions()
    return [
        name
        for name in ClusterOptions.model_fields
        if name not in WHEREABOUTS and getattr(site.options, name) != getattr(stock, name)
    ]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """Read the first two numbers of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
