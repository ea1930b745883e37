"""Checks what a plan reads: its images, and its data sets with the claims that hold them."""

from collections.abc import Iterator

from components.core.errors import ExitCode, StoreError
from components.core.store import bucket_and_key
from components.datasets.findings import Fault
from pipelines.backends.findings import Finding
from pipelines.backends.kubeflow.doctor.findings import (
    MissingError,
    RefusedError,
    failed,
    ok,
    skipped,
    warning,
)
from pipelines.backends.kubeflow.doctor.pods import Ended, PodTask, run_pod
from pipelines.backends.kubeflow.doctor.site import IMAGE, Site
from pipelines.backends.kubeflow.images import DIGEST
from pipelines.backends.kubeflow.names import mount_path
from pipelines.backends.kubeflow.parameters import existing_parameters, pvc_parameter
from pipelines.plan import Existing, Plan
from pipelines.words import number

SHOWN = 3  # faults of a data set
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


def images(site: Site) -> Iterator[Finding]:
    """Check that images are named by what is in them: a tag may be moved between two steps."""
    assert site.plan is not None
    for name, reference in site.images().items():
        if DIGEST.search(reference):
            yield ok(reference)
            continue
        words = f"{reference} is a tag, which may mean another image tomorrow"
        way_out = (
            "make images REGISTRY=HOST/PATH PUSH=1",
            f"--cluster images.{name}=REGISTRY/NAME@sha256:...",
        )
        if site.plan.scale == "full" and not site.options.allow_tags:
            allow = "--cluster allow_tags=true"
            yield failed(words, *way_out, allow, code=ExitCode.USAGE)
        else:
            yield warning(words, *way_out)


def claims(site: Site) -> Iterator[Finding]:
    """Check that the claim of each mounted data set is there and bound."""
    for name, claim in _claims(site).items():
        try:
            held = site.ask(
                f"look up the claim {claim} of {site.namespace}",
                site.cluster.core.read_namespaced_persistent_volume_claim,
                claim,
                site.namespace,
            )
        except MissingError:
            yield failed(
                f"namespace {site.namespace} has no persistent volume claim {claim} for the data "
                f"set {name}",
                f"kubectl get persistentvolumeclaims --namespace {site.namespace}",
                f"--data {name}=CLAIM",
            )
            continue
        if held.status.phase == "Bound":
            yield ok(f"{name}: {claim}, {(held.status.capacity or {}).get('storage', 'bound')}")
        elif held.status.phase == "Pending" and _waits_for_a_pod(site, held):
            yield failed(
                f"{name}: the claim {claim} has never been used by a pod, so nothing is in it yet",
                f"copy the data set into it, or --data {name}=CLAIM",
                code=ExitCode.BAD_DATA,
            )
        else:
            yield failed(
                f"{name}: the claim {claim} is {held.status.phase}, not bound to a volume",
                f"kubectl describe persistentvolumeclaim {claim} --namespace {site.namespace}",
                f"--data {name}=CLAIM",
            )


def data_sets(site: Site) -> Iterator[Finding]:
    """Look into each mounted data set with a pod, as `moco data check` does."""
    assert site.plan is not None
    claims = _claims(site)
    for name, layout in site.plan.layouts():
        shown = name if layout == name else f"{name} as {layout}"
        if not site.pods:
            yield skipped(f"{shown}: left out by --no-pods")
            continue
        folder = mount_path(name)
        argv = ["python", "-m", "pipelines", "data", "check", layout, folder, "--json"]
        task = PodTask(site.images()[IMAGE], argv, claims={folder: claims[name]})
        yield from _of_check(shown, name, claims[name], run_pod(site, task))


def artifacts(site: Site) -> Iterator[Finding]:
    """Check that what exists already is there: data, checkpoints, an earlier run's artifacts."""
    assert site.plan is not None
    values = site.values()
    found = 0
    for existing, parameter in existing_parameters(site.plan).items():
        uri = values[parameter]
        bucket, key = bucket_and_key(uri)
        try:
            store = site.cluster.store(bucket)
            if store.holds(key):
                found += 1
                continue
        except StoreError as error:
            yield warning(f"{uri} cannot be looked up from this machine: {error}")
            continue
        kind = "a data set" if existing.read_in_place else f"a {existing.kind}"
        yield failed(
            f"{uri}, {kind} that {_reader(site.plan, existing)} reads, is not there",
            f"--parameter {parameter}=URI names another place",
            "what an earlier run made and was deleted is made anew by a new run: moco submit",
            code=ExitCode.BAD_DATA,
        )
    if found:
        yield ok(f"{number(found, 'place')} in the store that the plan reads")


def _reader(plan: Plan, existing: Existing) -> str:
    return next(step.name for step in plan for _, source in step.sources() if source == existing)


def _claims(site: Site) -> dict[str, str]:
    """Return the claim of each data set that the plan mounts."""
    values = site.values()
    names = site.plan.mounts() if site.plan else []
    return {name: values[pvc_parameter(name)] for name in names}


def _waits_for_a_pod(site: Site, claim: object) -> bool:
    """Tell whether a claim's class makes the volume only when the first pod asks for it."""
    from kubernetes import client

    wanted = claim.spec.storage_class_name  # type: ignore[attr-defined]
    api = client.StorageV1Api(site.cluster.kubernetes)
    try:
        classes = site.ask("list storage classes", api.list_storage_class).items
    except RefusedError:
        return False
    for storage_class in classes:
        default = (storage_class.metadata.annotations or {}).get(DEFAULT_CLASS) == "true"
        if storage_class.metadata.name == wanted or (wanted is None and default):
            return bool(storage_class.volume_binding_mode == "WaitForFirstConsumer")
    return False


def _of_check(shown: str, name: str, claim: str, ended: Ended) -> Iterator[Finding]:
    answer = ended.answer("faults")
    if answer is None:
        yield failed(
            f"{shown}: the check of claim {claim} did not come to its end ({ended.words()})",
            "build the images of this version: make images REGISTRY=HOST/PATH PUSH=1",
        )
        return
    counts = ", ".join(f"{what} {count:,}" for what, count in answer["counts"].items())
    held = f"claim {claim}{f' with {counts}' if counts else ''}"
    faults = [Fault(**fault) for fault in answer["faults"]]
    if faults:
        more = f"\nand {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        first = "\n".join(map(str, faults[:SHOWN]))
        yield failed(
            f"{shown}: {number(len(faults), 'fault')} in {held}\n{first}{more}",
            "copy the data set into it, in the layout that the README shows",
            f"--data {name}=CLAIM",
            code=ExitCode.BAD_DATA,
        )
    elif answer["notes"]:
        yield warning(f"{shown}: {held}\n" + "\n".join(answer["notes"]))
    else:
        yield ok(f"{shown}: {held}")
