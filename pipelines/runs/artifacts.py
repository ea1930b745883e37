"""Finished artifacts, where they lie: in the folder of a run, or in a store."""

import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from components.core.errors import DataError, UsageError
from components.core.manifest import MANIFEST, Manifest, is_safe_name
from components.core.store import FolderStore, Store
from pipelines.runs.folder import Run
from pipelines.runs.record import DONE

Opener = Callable[[str], Store]
"""Opens the store behind a URL."""


@dataclass(frozen=True)
class StoredArtifact:
    """A finished artifact, and where it lies.

    Attributes:
        url: Of its folder, or of its file if it is HTML.
        store: The store that holds it.
        key: Of the same in that store.
        size: Bytes of all its files.
        manifest: What it holds; none for HTML.
        text: The manifest as it was written.
        origin: `RUN/STEP` that made it, if that was an earlier run.
    """

    url: str
    store: Store
    key: str
    size: int
    manifest: Manifest | None = None
    text: bytes = b""
    origin: str | None = None


StoredArtifacts = dict[tuple[str, str], StoredArtifact]
"""Artifacts by step and port."""


Urls = Mapping[tuple[str, str], str]
"""Where finished artifacts lie, by step and port."""


def urls_of(artifacts: StoredArtifacts) -> Urls:
    """Return where artifacts lie."""
    return {output: artifact.url for output, artifact in artifacts.items()}


class Origin(Protocol):
    """What knows where the artifacts of a run lie, and opens the stores that hold them."""

    def artifacts(self, run: Run) -> StoredArtifacts:
        """Return every finished artifact of a run, by step and port."""

    def store(self, url: str, run: Run) -> Store:
        """Open the store behind a URL that a run reads."""


def artifacts_here(run: Run, damaged: bool = True) -> StoredArtifacts:
    """Return the finished artifacts that lie in a run's own folder, by step and port.

    Args:
        run: The run.
        damaged: Whether one with a damaged manifest is an error, or is left out.

    Raises:
        DataError: if a manifest is damaged.
    """
    artifacts = {}
    for step in run.plan:
        if run.status(step.name).state not in DONE:
            continue
        for port, path in run.artifacts(step.name, step.stage.outputs).items():
            if path.is_file() or (path / MANIFEST).exists():
                with nullcontext() if damaged else suppress(DataError):
                    artifacts[step.name, port] = artifact_here(path)
    return artifacts


def artifact_here(path: Path) -> StoredArtifact:
    """Return the artifact of a folder, or the file that HTML is.

    Raises:
        DataError: if its manifest is damaged.
    """
    if path.is_file():
        return StoredArtifact(str(path), FolderStore(path.parent), path.name, path.stat().st_size)
    text = (path / MANIFEST).read_bytes()
    manifest = parse_manifest(str(path), text)
    return StoredArtifact(str(path), FolderStore(path), "", manifest.size, manifest, text)


def artifact_at(url: str, store: Store) -> StoredArtifact:
    """Return the finished artifact that a URL names.

    Args:
        url: Of its folder.
        store: The store that it lies in, or a folder above it.

    Raises:
        DataError: if there is none, or it is not whole.
        StoreError: if the store cannot be reached or refuses.
    """
    key = key_below(store, url)
    files = {entry.key[len(key) :].strip("/"): entry.size for entry in store.list(key)}
    if MANIFEST not in files:
        raise DataError(f"{url} has no {MANIFEST}: there is no finished artifact")
    text = store.read(f"{key}/{MANIFEST}".strip("/"))
    manifest = parse_manifest(url, text)
    if not is_complete(manifest, files):
        raise DataError(f"{url} lacks files that its {MANIFEST} lists: it is not whole")
    return StoredArtifact(url, store, key, sum(files.values()), manifest, text)


def parse_manifest(url: str, text: bytes) -> Manifest:
    """Read a manifest that came from a store.

    Raises:
        DataError: if it is none, or names a file that would leave its folder.
    """
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise DataError(f"{url}/{MANIFEST} is not a manifest: {error}") from None
    for name in manifest.files:
        if not is_safe_name(name) or name == MANIFEST:
            raise DataError(f"{url}/{MANIFEST} names the file {name!r}: refused")
    return manifest


def key_below(store: Store, url: str) -> str:
    """Return the key of a URL in a store, whatever the schemes of the two are called.

    Raises:
        UsageError: if it does not lie there.
    """
    path, root = (re.sub(r"^\w+://", "", place).rstrip("/") for place in (url, store.url))
    if path != root and not path.startswith(f"{root}/"):
        raise UsageError(f"{url} does not lie in the store {store.url}")
    return path.removeprefix(root).strip("/")


def is_complete(manifest: Manifest, files: Mapping[str, int]) -> bool:
    """Say whether all files of a manifest are there, by their sizes."""
    return all(files.get(name) == entry.size for name, entry in manifest.files.items())
