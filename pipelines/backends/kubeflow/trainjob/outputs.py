"""Looks at what a TrainJob wrote into the store."""

from collections.abc import Mapping
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


def figures_of(stage: Stage[Any], outputs: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Read the figures of a stage's Metrics outputs from the store.

    Raises:
        StoreError: if the store cannot be reached or refuses.
    """
    figures = {}
    for name, url in outputs.items():
        if stage.outputs[name].kind == "Metrics":
            store, key = _place(url)
            figures[name] = Metrics.model_validate_json(store.read(f"{key}/{METRICS}")).values
    return figures


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
