"""Looks at what a TrainJob wrote into the store, and tells the platform."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from components.core.errors import DataError
from components.core.manifest import MANIFEST, Manifest
from components.core.metrics import METRICS, Metrics
from components.core.stage import Stage
from components.core.store import KeyNotFound, Store, open_store


def missing_outputs(stage: Stage[Any], outputs: Mapping[str, str]) -> list[str]:
    """Say what of a stage's outputs is not in the store, whole.

    Sizes are compared with the manifest; whoever reads an artifact compares the hashes.

    Raises:
        StoreError: if the store cannot be reached or refuses.
    """
    faults = []
    for name, url in outputs.items():
        store, key = _place(url)
        if stage.outputs[name].kind == "HTML":
            if not store.list(key):
                faults.append(f"{url} is not there")
        else:
            faults += [f"{url}{fault}" for fault in _faults(store, key)]
    return faults


def tell_platform(stage: Stage[Any], outputs: Mapping[str, str], executor_input: str) -> None:
    """Give Kubeflow Pipelines the figures of Metrics artifacts, which its UI then shows."""
    told = json.loads(executor_input).get("outputs", {})
    known: dict[str, Any] = {}
    for name, url in outputs.items():
        artifacts = told.get("artifacts", {}).get(name, {}).get("artifacts", [])
        if stage.outputs[name].kind == "Metrics" and artifacts:
            store, key = _place(url)
            values = Metrics.model_validate_json(store.read(f"{key}/{METRICS}")).values
            artifact = {
                part: artifacts[0][part] for part in ("name", "uri") if part in artifacts[0]
            }
            known[name] = {"artifacts": [{**artifact, "metadata": values}]}
    file = told.get("outputFile")
    if known and file:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(json.dumps({"artifacts": known}), "utf-8")


def _faults(store: Store, key: str) -> list[str]:
    sizes = {entry.key.removeprefix(f"{key}/"): entry.size for entry in store.list(key)}
    try:
        manifest = Manifest.model_validate_json(store.read(f"{key}/{MANIFEST}"))
    except KeyNotFound:
        return [f" has no {MANIFEST}"]
    except ValidationError as error:
        raise DataError(f"{store.url}/{key}/{MANIFEST} is not a manifest: {error}") from None
    return [
        f"/{name} has {sizes.get(name, 'no')} bytes, not {entry.size}"
        for name, entry in manifest.files.items()
        if sizes.get(name) != entry.size
    ]


def _place(url: str) -> tuple[Store, str]:
    parent, _, key = url.rstrip("/").rpartition("/")
    return open_store(parent), key
