"""Checks the store: its secret, and its use from this machine and from a pod."""

import os
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from components.core.errors import ClusterError, ExitCode, StoreError
from components.core.store.probe import probe
from components.core.store_environment import ACCESS_KEY, ENDPOINT, SECRET_KEY, names_endpoint
from pipelines.backends.findings import Finding
from pipelines.backends.kubeflow.doctor.findings import (
    FaultError,
    MissingError,
    RefusedError,
    failed,
    ok,
    skipped,
)
from pipelines.backends.kubeflow.doctor.pods import Ended, PodTask, run_pod
from pipelines.backends.kubeflow.doctor.site import Site


def secret(site: Site) -> Iterator[Finding]:
    """Check that the secret with the store's credentials is there and whole; never its content."""
    options, place = site.options, site.namespace
    name = site.values().get("store_secret") or options.store_secret
    try:
        held = site.ask(
            f"read the secret {name} of {place}",
            site.cluster.core.read_namespaced_secret,
            name,
            place,
        )
    except RefusedError as error:
        yield skipped(f"{error}; a pod will tell, if it is there")
        return
    except MissingError:
        raise FaultError(
            f"namespace {place} has no secret {name}",
            f"kubectl create secret generic {name} --namespace {place} "
            f"--from-literal={options.access_key_field}=ID "
            f"--from-literal={options.secret_key_field}=SECRET",
            "--cluster store_secret=NAME",
        ) from None
    keys = sorted(held.data or {})
    settings = {
        "access_key_field": options.access_key_field,
        "secret_key_field": options.secret_key_field,
    }
    absent = {setting: key for setting, key in settings.items() if not (held.data or {}).get(key)}
    if absent:
        raise FaultError(
            f"the secret {name} of namespace {place} has no key "
            f"{' and no key '.join(absent.values())}; it has {', '.join(keys) or 'none'}",
            *(f"--cluster {setting}=KEY" for setting in absent),
        )
    yield ok(f"{name} with {', '.join(settings.values())}")


def store(site: Site) -> Iterator[Finding]:
    """Check that this machine can use the store, as `submit`, `pull` and `report` do."""
    root = site.options.root
    try:
        probe(site.cluster.store(root))
    except ClusterError as error:  # its secret may not be read
        own = f"export {ACCESS_KEY}=ID {SECRET_KEY}=SECRET"
        raise FaultError(str(error), own, code=error.exit_code) from None
    except StoreError as error:
        raise FaultError(
            str(error), *_ways_to_the_store(site, str(error)), code=error.exit_code
        ) from None
    yield ok(f"{root}: written, read and deleted from this machine")


def store_in_pods(site: Site) -> Iterator[Finding]:
    """Check that pods of each image start, and can use the store."""
    if not site.pods:
        yield skipped("left out by --no-pods")
        return
    for image in site.images().values():
        argv = ["python", "-m", "components.core.store.probe", site.options.root]
        yield _of_probe(site, image, run_pod(site, PodTask(image, argv, store=True)))


def _of_probe(site: Site, image: str, ended: Ended) -> Finding:
    answer = ended.answer("words")
    if answer is None:
        return failed(
            f"a pod of image {image} does not know how to probe a store ({ended.words()})",
            "build the images of this version: make images REGISTRY=HOST/PATH PUSH=1",
            "--cluster images.NAME=REGISTRY/NAME@sha256:...",
        )
    if answer["ok"]:
        return ok(f"{answer['words']} from a pod of image {image}")
    known = ended.code in list(ExitCode)
    return failed(
        f"from a pod of image {image}: {answer['words']}",
        "--cluster store_endpoint=http://HOST:PORT, as pods reach the store",
        f"kubectl describe networkpolicy --namespace {site.namespace}",
        code=ExitCode(ended.code) if known else ExitCode.LOST_STORE,
    )


def _ways_to_the_store(site: Site, words: str) -> tuple[str, ...]:
    """Return ways out for a bucket that is missing, and for a name that only pods can resolve."""
    if "NoSuchBucket" in words:
        return ("--cluster root=minio://BUCKET/FOLDER, or s3://BUCKET/FOLDER",)
    if names_endpoint(os.environ):
        return ()
    parts = urlsplit(site.options.store_endpoint)
    try:
        socket.getaddrinfo(parts.hostname, parts.port)
    except OSError:
        service, _, rest = (parts.hostname or "").partition(".")
        port = parts.port or 80
        return (
            f"kubectl port-forward --namespace {rest.partition('.')[0] or site.namespace} "
            f"service/{service} {port} & export {ENDPOINT[0]}={parts.scheme}://127.0.0.1:{port}",
        )
    return ()
