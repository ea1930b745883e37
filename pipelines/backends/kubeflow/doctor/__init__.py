"""Checks a cluster before anything is spent on it, and says what helps.

Each check is a function that yields what it found; one whose ground is missing is not tried.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from components.core.errors import MocoError
from pipelines.backends.findings import Finding
from pipelines.backends.kubeflow.connection import Cluster
from pipelines.backends.kubeflow.doctor import access, capacity, data, parts, server, storage
from pipelines.backends.kubeflow.doctor.findings import FaultError, of_error, skipped
from pipelines.backends.kubeflow.doctor.site import Site
from pipelines.plan import Plan

__all__ = ["CHECKS", "Check", "Finding", "Site", "examine", "require"]


@dataclass(frozen=True)
class Check:
    """Something to look at.

    Attributes:
        name: For people.
        look: Yields what it finds.
        after: The checks without which this one would only repeat their failure.
        of_plan: Whether it is about what a plan needs.
    """

    name: str
    look: Callable[[Site], Iterator[Finding]]
    after: tuple[str, ...] = ()
    of_plan: bool = False


CHECKS = (
    Check("packages", access.packages),
    Check("cluster", access.cluster, ("packages",)),
    Check("credentials", access.credentials, ("cluster",)),
    Check("options", access.options, ("credentials",)),
    Check("namespace", access.namespace, ("options",)),
    Check("chart", access.chart, ("namespace",)),
    Check("rights", access.rights, ("namespace",)),
    Check("server", server.server, ("options",)),
    Check("retries", server.retries, ("options",)),
    Check("service account", server.service_account, ("chart",)),
    Check("launcher", server.launcher, ("chart",)),
    Check("secret", storage.secret, ("chart",)),
    Check("store", storage.store, ("secret",)),
    Check("store in pods", storage.store_in_pods, ("secret", "rights")),
    Check("next parts", parts.next_parts, ("rights", "store in pods"), of_plan=True),
    Check("images", data.images, ("options",), of_plan=True),
    Check("claims", data.claims, ("chart",), of_plan=True),
    Check("data sets", data.data_sets, ("claims", "rights", "store in pods"), of_plan=True),
    Check("artifacts", data.artifacts, ("store",), of_plan=True),
    Check("nodes", capacity.nodes, ("options",), of_plan=True),
    Check("quota", capacity.quota, ("namespace",), of_plan=True),
    Check("limits", capacity.limits, ("namespace",), of_plan=True),
    Check("queue", capacity.queue, ("namespace",)),
    Check("trainer", capacity.trainer, ("chart",), of_plan=True),
)


def examine(site: Site, checks: Sequence[Check] = CHECKS) -> Iterator[Finding]:
    """Perform checks in order, yielding what they find as soon as it is found."""
    causes: dict[str, str] = {}
    for check in checks:
        if check.of_plan and site.plan is None:
            continue
        cause = next((causes[name] for name in check.after if name in causes), None)
        if cause:
            causes[check.name] = cause
            yield replace(skipped(f"waits for: {cause}"), check=check.name)
            continue
        for finding in _findings(check, site):
            if finding.state == "failed":
                causes[check.name] = check.name
            yield replace(finding, check=check.name)


def require(cluster: Cluster, plan: Plan, parameters: Mapping[str, str] | None = None) -> None:
    """Refuse a plan that is known to fail on a cluster; no pod is started to find out.

    Raises:
        MocoError: naming all that is wrong with the way out, with the exit code of the first.
    """
    site = Site(cluster, plan, parameters or {})
    faults = [finding for finding in examine(site) if finding.state == "failed"]
    if faults:
        lines = [
            line
            for fault in faults
            for line in (f"{fault.check}: {fault.words}", *(f"  → {way}" for way in fault.way_out))
        ]
        raise FaultError("\n".join(lines), code=faults[0].code)


def _findings(check: Check, site: Site) -> Iterator[Finding]:
    try:
        yield from check.look(site)
    except MocoError as error:
        yield of_error(error)
