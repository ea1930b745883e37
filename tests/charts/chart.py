"""The chart, its documented variants, and what Helm makes of them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipelines.backends.kubeflow.connection import CONFIG_MAP, KEY
from pipelines.backends.kubeflow.options import ClusterOptions
from tests.servers.helm import Helm

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "moco-transfer"
RELEASE = "moco"
NAMESPACE = "runs"
KUBERNETES = "1.34"  # Helm's own idea of it depends on how it was built
VARIANTS: Mapping[str, Sequence[str]] = {
    "default": (),
    **{
        path.name.removesuffix("-values.yaml"): ("--values", str(path))
        for path in sorted((CHART / "ci").glob("*-values.yaml"))
    },
}

Document = dict[str, Any]


def rendered(helm: Helm, *arguments: str) -> list[Document]:
    """Return the objects that the chart makes with these arguments of `helm template`."""
    place = ("--namespace", NAMESPACE, "--kube-version", KUBERNETES)
    text = helm("template", RELEASE, CHART, *place, *arguments)
    return [document for document in yaml.safe_load_all(text) if document]


def the(documents: Sequence[Document], kind: str, name: str) -> Document:
    """Return the only object of a kind with that name."""
    (found,) = (
        document
        for document in documents
        if document["kind"] == kind and document["metadata"]["name"] == name
    )
    return found


def of_kind(documents: Sequence[Document], kind: str) -> dict[str, Document]:
    """Return the objects of a kind by name."""
    return {d["metadata"]["name"]: d for d in documents if d["kind"] == kind}


def options(documents: Sequence[Document]) -> ClusterOptions:
    """Read the options as `moco` does."""
    text = the(documents, "ConfigMap", CONFIG_MAP)["data"][KEY]
    return ClusterOptions.model_validate(json.loads(text), strict=False)


def pods(documents: Sequence[Document]) -> Iterator[tuple[str, Document]]:
    """Yield every pod that the objects make, with the name of its object."""
    for document in documents:
        # A StatefulSet's controller adds the volumes of its claims.
        claims = [
            {
                "name": claim["metadata"]["name"],
                "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]},
            }
            for claim in document.get("spec", {}).get("volumeClaimTemplates", ())
        ]
        for pod in _pods(document):
            pod["spec"].setdefault("volumes", []).extend(claims)
            yield document["metadata"]["name"], pod


def _pods(value: Any) -> Iterator[Document]:
    """Find pods and templates of pods at any depth: whatever has containers."""
    if isinstance(value, dict):
        if "containers" in (value.get("spec") or {}):
            yield {"metadata": value.get("metadata", {}), "spec": value["spec"]}
        else:
            for inner in value.values():
                yield from _pods(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _pods(inner)
