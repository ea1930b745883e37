"""Checks that a plan's largest steps have room: nodes, quota, limits, queue, several nodes."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from components.core.errors import UsageError
from pipelines.backends.findings import Finding
from pipelines.backends.kubeflow.doctor.findings import (
    FaultError,
    MissingError,
    failed,
    ok,
    skipped,
    warning,
)
from pipelines.backends.kubeflow.doctor.site import Site
from pipelines.backends.kubeflow.options import ClusterOptions, Toleration
from pipelines.backends.kubeflow.pod import step_pod
from pipelines.backends.kubeflow.sizes import nodes_at
from pipelines.plan import Plan, Step

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
KUEUE = [("kueue.x-k8s.io", version) for version in ("v1beta2", "v1beta1")]
TRAINER = ("trainer.kubeflow.org", "v1alpha1")
REPELLING = ("NoSchedule", "NoExecute")
AUTOSCALER = ("cluster-autoscaler-status", "kube-system")
SIZES = {"cpu": "cpus", "memory": "memory"}  # resources of a node, parameters of a pipeline


@dataclass(frozen=True)
class Need:
    """What a pod of a stage asks for.

    Attributes:
        stage: The stage's name, as parameters spell it.
        amounts: What it must be given, by resource name, as nodes have them; memory in bytes.
        limits: What it may use.
        nodes: How many such pods a step is.
    """

    stage: str
    amounts: Mapping[str, Decimal]
    limits: Mapping[str, Decimal]
    nodes: int = 1

    def __str__(self) -> str:
        pods = f"{self.nodes} pods of " if self.nodes > 1 else ""
        return f"{self.stage} ({pods}{_shown(self.amounts)})"


@dataclass(frozen=True)
class Node:
    """A node as the scheduler sees it for our pods.

    Attributes:
        name: Its name.
        amounts: What it has for pods, by resource name.
        closed: Why our pods may not run there; empty if they may.
    """

    name: str
    amounts: Mapping[str, Decimal]
    closed: str = ""

    def lacks(self, need: Need) -> dict[str, Decimal]:
        """Return what it has too little of, with the amount it has."""
        return {
            name: self.amounts.get(name, Decimal(0))
            for name, amount in need.amounts.items()
            if self.amounts.get(name, Decimal(0)) < amount
        }


def nodes(site: Site) -> Iterator[Finding]:
    """Check that some node is large enough for each stage; whether it is free now is no matter."""
    wanted = needs(site)
    try:
        listed = site.ask("list nodes", site.cluster.core.list_node).items
    except FaultError as error:
        yield skipped(str(error))
        return
    all_nodes = [_node(node, site.options) for node in listed]
    fitting = {
        need.stage: [n for n in all_nodes if not n.closed and not n.lacks(need)] for need in wanted
    }
    homeless: dict[tuple[Any, ...], Need] = {}  # one of each size is enough to say
    for need in wanted:
        if not fitting[need.stage]:
            homeless.setdefault(tuple(need.amounts.items()), need)
    if not homeless:
        names = [node.name for node in fitting[wanted[0].stage]]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield ok(f"the largest step, {wanted[0]}, fits on {names[0]}{more}")
        return
    grows = _grows(site)
    for need in homeless.values():
        best = min(
            all_nodes, key=lambda node: (bool(node.closed), -_share(node, need)), default=None
        )
        words = f"no node takes {need}: {_shortage(all_nodes, best, need)}"
        if grows:
            yield warning(f"{words}; the cluster's autoscaler may add one", *_ways(best, need))
        else:
            yield failed(words, *_ways(best, need))


def quota(site: Site) -> Iterator[Finding]:
    """Check that the namespace's quotas leave room for each stage."""
    wanted = needs(site)
    core, place = site.cluster.core, site.namespace
    quotas = site.ask(f"list quotas of {place}", core.list_namespaced_resource_quota, place).items
    faults = []
    for resource_quota in quotas:
        called = resource_quota.metadata.name
        hard = _amounts(resource_quota.status.hard)
        used = _amounts(resource_quota.status.used)
        for name, limit in hard.items():
            for need in wanted:
                amount = _counted(name, need)
                if amount is None or limit - used.get(name, Decimal(0)) >= amount:
                    continue
                faults.append(
                    failed(
                        f"the quota {called} of {place} has {name} {_as(name, limit)}, "
                        f"{_as(name, used.get(name, Decimal(0)))} of it used, and {need} needs "
                        f"{_as(name, amount)}"
                        f"{'' if limit < amount else '; it waits until others end'}",
                        f"kubectl describe resourcequota {called} --namespace {place}",
                        f"kubectl edit resourcequota {called} --namespace {place}",
                    )
                )
                break
    yield from faults
    if not faults:
        names = ", ".join(resource_quota.metadata.name for resource_quota in quotas)
        yield ok(f"{names}: room for {wanted[0]}" if quotas else f"{place} has no quota")


def limits(site: Site) -> Iterator[Finding]:
    """Check that no limit range refuses a stage's pods."""
    wanted = needs(site)
    core, place = site.cluster.core, site.namespace
    ranges = site.ask(
        f"list limit ranges of {place}", core.list_namespaced_limit_range, place
    ).items
    faults = [
        failed(
            f"the limit range {limit_range.metadata.name} of {place} allows a {item.type.lower()} "
            f"{_as(name, most)} of {name}, and {need.stage} may use "
            f"{_as(name, need.limits[name])}",
            f"kubectl edit limitrange {limit_range.metadata.name} --namespace {place}",
            *_smaller(need, name),
        )
        for limit_range in ranges
        for item in limit_range.spec.limits
        if item.type in ("Container", "Pod")
        for name, most in _amounts(item.max).items()
        for need in wanted
        if need.limits.get(name, Decimal(0)) > most
    ]
    yield from faults
    if not faults:
        names = ", ".join(limit_range.metadata.name for limit_range in ranges)
        yield ok(names or f"{place} has no limit range")


def queue(site: Site) -> Iterator[Finding]:
    """Check that the Kueue queue that pods are labelled with exists."""
    name = site.options.labels.get(QUEUE_LABEL)
    if name is None:
        return
    api = next((version for version in KUEUE if _has_api(site, *version)), None)
    if api is None:
        raise FaultError(
            f"pods are labelled for the queue {name}, and the cluster has no Kueue",
            "--cluster labels={}",
            "install Kueue",
        )
    try:
        site.ask(
            f"look up the queue {name}",
            site.cluster.objects.get_namespaced_custom_object,
            *api,
            site.namespace,
            "localqueues",
            name,
        )
    except MissingError:
        raise FaultError(
            f"namespace {site.namespace} has no queue {name}: pods would wait for ever",
            f"kubectl get localqueues --namespace {site.namespace}",
            f"--cluster 'labels={json.dumps({QUEUE_LABEL: 'NAME'})}'",
        ) from None
    yield ok(name)


def trainer(site: Site) -> Iterator[Finding]:
    """Check Kubeflow Trainer, if a step is larger than a node."""
    large = [need for need in needs(site) if need.nodes > 1]
    if not large:
        return
    name = site.options.trainer_runtime
    each = "--cluster gpus_per_node=COUNT, if a node has more"
    if not _has_api(site, *TRAINER):
        raise FaultError(
            f"{large[0]} needs Kubeflow Trainer, which the cluster does not have "
            f"({'/'.join(TRAINER)})",
            "install Kubeflow Trainer 2.0 or newer, its CRDs and JobSet included",
            each,
        )
    try:
        site.ask(
            f"look up the training runtime {name}",
            site.cluster.objects.get_namespaced_custom_object,
            *TRAINER,
            site.namespace,
            "trainingruntimes",
            name,
        )
    except MissingError:
        raise FaultError(
            f"namespace {site.namespace} has no training runtime {name}, which {large[0]} needs",
            f"kubectl get trainingruntimes --namespace {site.namespace}",
            "--cluster trainer_runtime=NAME",
            each,
        ) from None
    yield ok(f"training runtime {name}")


def needs(site: Site) -> list[Need]:
    """Return what each stage of the plan asks of a node, the largest first."""
    assert site.plan is not None
    accelerator = site.values().get("accelerator_type", site.options.accelerator)
    stages = {step.stage.name: step for step in site.plan}
    return sorted(
        (_need(site, site.plan, step) for _, step in sorted(stages.items())),
        key=lambda need: (
            need.amounts.get(accelerator, Decimal(0)),
            need.amounts["cpu"],
            need.amounts["memory"],
        ),
        reverse=True,
    )


def _need(site: Site, plan: Plan, step: Step) -> Need:
    pod = step_pod(plan, step, site.options).filled(site.values())
    nodes = nodes_at(plan.scale, step.stage, site.options)
    return Need(step.stage.name, _amounts(pod.requests()), _amounts(pod.limits()), nodes)


def _node(node: Any, options: ClusterOptions) -> Node:
    labels = node.metadata.labels or {}
    unlike = [
        f"{key}={value}" for key, value in options.node_selector.items() if labels.get(key) != value
    ]
    repelling = [
        taint
        for taint in node.spec.taints or ()
        if taint.effect in REPELLING
        and not any(_tolerates(toleration, taint) for toleration in options.tolerations)
    ]
    closed = ""
    if not any(
        condition.type == "Ready" and condition.status == "True"
        for condition in node.status.conditions or ()
    ):
        closed = "it is not ready"
    elif unlike:
        closed = f"it has no label {' and no label '.join(unlike)}"
    elif repelling:
        closed = "it has the taint " + " and ".join(
            f"{taint.key}{f'={taint.value}' if taint.value else ''}:{taint.effect}"
            for taint in repelling
        )
    return Node(node.metadata.name, _amounts(node.status.allocatable), closed)


def _tolerates(toleration: Toleration, taint: Any) -> bool:
    if toleration.effect not in (None, taint.effect):
        return False
    if toleration.key not in (None, taint.key):
        return False
    return toleration.operator == "Exists" or (toleration.value or "") == (taint.value or "")


def _share(node: Node, need: Need) -> Decimal:
    """Return how much of a need a node has, 1 if it has all: of what it is shortest of."""
    shares = [
        min(Decimal(1), node.amounts.get(name, Decimal(0)) / amount)
        for name, amount in need.amounts.items()
        if amount
    ]
    return sum(shares, Decimal(0))


def _shortage(all_nodes: list[Node], best: Node | None, need: Need) -> str:
    """Say what the best node lacks, and which nodes are closed that would do."""
    if best is None:
        return "the cluster has no node"
    if best.closed:
        return f"{best.name}: {best.closed}"
    lacking = ", ".join(f"{_as(name, has)} {_unit(name)}" for name, has in best.lacks(need).items())
    closed = [node for node in all_nodes if node.closed and not node.lacks(need)]
    would_do = "".join(f"; {node.name} would do, but {node.closed}" for node in closed[:1])
    return f"the best of {len(all_nodes)}, {best.name}, has {lacking}{would_do}"


def _ways(best: Node | None, need: Need) -> tuple[str, ...]:
    """Return what helps against a shortage."""
    if best is None:
        return ("kubectl get nodes",)
    if "taint" in best.closed:
        key = best.closed.removeprefix("it has the taint ").partition(":")[0].partition("=")[0]
        return (f"--cluster 'tolerations={json.dumps([{'key': key}])}'",)
    if best.closed:
        return (f"kubectl describe node {best.name}", "--cluster 'node_selector={...}'")
    ways: list[str] = []
    for name in best.lacks(need):
        if name in SIZES:
            ways += _smaller(need, name)
            continue
        kinds = [
            kind for kind in best.amounts if "gpu" in kind and kind != name and best.amounts[kind]
        ]
        ways += [f"--cluster accelerator={kind}" for kind in kinds]
        if best.amounts.get(name):
            ways.append(f"--cluster gpus_per_node={best.amounts[name]}: more pods with fewer each")
        else:
            ways.append("install the device plugin of the GPUs, or: --scale digits")
    return tuple(ways)


def _smaller(need: Need, resource: str) -> tuple[str, ...]:
    if resource not in SIZES:
        return ()
    parameter = f"{SIZES[resource]}_{need.stage.replace('.', '_')}"
    return (f"--parameter {parameter}={'COUNT' if resource == 'cpu' else 'SIZEGi'}",)


def _counted(name: str, need: Need) -> Decimal | None:
    """Return how much of a quota's item a step takes; None if it takes nothing of that kind."""
    of = need.limits if name.startswith("limits.") else need.amounts
    if name in ("pods", "count/pods"):
        return Decimal(need.nodes)
    resource = name.removeprefix("requests.").removeprefix("limits.")
    amount = of.get(resource)
    return None if amount is None else amount * need.nodes


def _grows(site: Site) -> bool:
    """Tell whether something adds nodes to the cluster when pods wait for them."""
    if _has_api(site, "karpenter.sh", "v1"):
        return True
    try:
        site.ask(
            "look for an autoscaler", site.cluster.core.read_namespaced_config_map, *AUTOSCALER
        )
    except FaultError:
        return False
    return True


def _has_api(site: Site, group: str, version: str) -> bool:
    try:
        site.ask(f"look for {group}", site.cluster.objects.get_api_resources, group, version)
    except MissingError:
        return False
    return True


def _amounts(quantities: Mapping[str, str] | None) -> dict[str, Decimal]:
    amounts = {}
    for name, text in (quantities or {}).items():
        amounts[name] = _quantity(text)
    return amounts


def _quantity(text: str) -> Decimal:
    from kubernetes.utils.quantity import parse_quantity

    try:
        return Decimal(parse_quantity(text))
    except ValueError:
        raise UsageError(f"{text!r} is no amount of a resource: write 8, 500m or 16Gi") from None


def _shown(amounts: Mapping[str, Decimal]) -> str:
    return ", ".join(f"{_as(name, amount)} {_unit(name)}" for name, amount in amounts.items())


def _as(name: str, amount: Decimal) -> str:
    """Write an amount of a resource for people."""
    if name.endswith(("memory", "storage")):
        return f"{amount / (1 << 30):.3g} GiB"
    return f"{amount.normalize():f}"


def _unit(name: str) -> str:
    return {"cpu": "CPU", "memory": "memory"}.get(name, name)
