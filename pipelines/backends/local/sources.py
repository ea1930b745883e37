"""Finds what a plan reads but does not make: mounted data sets and existing artifacts."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from components.core.config import nearest
from components.core.content import describe
from components.core.errors import DataError, MocoError, UsageError
from components.core.manifest import MANIFEST, file_sha256, read_manifest, verify, weights_in
from components.core.stage import Port
from components.core.store import KeyNotFound, bucket_and_key, is_remote, local_path, open_store
from components.core.store.shards import INDEX, SPLITS, fetch_index
from pipelines.plan import Existing, Mounted, Plan

FETCHED = ".fetched"
"""Folder, below the runs, of the artifacts that were fetched from a bucket."""


@dataclass(frozen=True)
class Sources:
    """Where the mounted data sets and the existing artifacts of a plan are.

    Attributes:
        mounts: Absolute folders of data sets, by name.
        existing: Paths of existing artifacts, by URI.
        digests: What identifies the content of each; asked when reuse is decided.
    """

    mounts: Mapping[str, Path]
    existing: Mapping[str, Path]
    digests: dict[Path, str] = field(default_factory=dict)

    def path(self, source: Mounted | Existing) -> Path:
        """Return where a source is."""
        if isinstance(source, Mounted):
            return self.mounts[source.name]
        return self.existing[source.uri]

    def digest(self, source: Mounted | Existing) -> str:
        """Identify a source's content.

        An artifact by its manifest, a file by its SHA-256, a mounted folder by its
        pictures' names and sizes and its label files: 150 GB of images are not read
        again for each plan.
        """
        path = self.path(source)
        if path not in self.digests:
            self.digests[path] = _digest(path)
        return self.digests[path]


def find_sources(
    plan: Plan, folders: Mapping[str, str], runs: Path, complete: bool = True
) -> Sources:
    """Find every data set and artifact that a plan reads, before anything starts.

    Artifacts in a bucket are fetched, and verified, into a folder below the runs.

    Args:
        plan: The plan.
        folders: Folders of data sets by name, as a user gave them.
        runs: The folder of the runs.
        complete: Whether every data set has to be given; to look at a plan, none has to, and
            none is fetched whole.

    Raises:
        UsageError: naming all data sets that were not given, or not known.
        DataError: naming all folders and artifacts that are not there, are not whole, or cannot
            be used by the steps that read them.
        StoreError: if a bucket cannot be reached.
    """
    _check_names(plan, folders, complete)
    faults: list[str] = []
    mounts = {}
    for name in folders:
        folder = local_path(folders[name]).expanduser().absolute()
        if not folder.is_dir():
            faults.append(f"--data {name}={folders[name]}: there is no such folder")
        elif not any(folder.iterdir()):
            faults.append(f"--data {name}={folders[name]}: the folder is empty")
        mounts[name] = folder
    existing = {}
    for source, port in _existing(plan).items():
        try:
            if complete or not _is_left_alone(source, port):
                existing[source.uri] = _locate(source, port, runs)
        except DataError as error:
            faults.append(str(error))
    if not faults:
        faults += _unusable(plan, mounts, existing)
    if faults:
        raise DataError("\n".join(faults))
    return Sources(mounts, existing)


def _unusable(
    plan: Plan, mounts: Mapping[str, Path], existing: Mapping[str, Path]
) -> Iterator[str]:
    """Say which steps cannot use the data, artifacts and files that they are given."""
    for step in plan:
        given = {
            name: existing[source.uri] if isinstance(source, Existing) else mounts[source.name]
            for name, source in step.sources()
            if (isinstance(source, Existing) and source.uri in existing)
            or (isinstance(source, Mounted) and source.name in mounts)
        }
        try:
            step.config.inspect(given)
        except MocoError as error:
            yield f"{step.name}: {error}\n(--set {step.name}.FIELD=VALUE sets a field of the step)"


def _check_names(plan: Plan, folders: Mapping[str, str], complete: bool) -> None:
    needed = plan.mounts()
    missing = [name for name in needed if name not in folders] if complete else []
    faults = [
        f"--data {name}: the plan mounts no such data set"
        + (nearest(name, needed) or (f"; it mounts {', '.join(needed) or 'none'}"))
        for name in folders
        if name not in needed
    ]
    if missing:
        options = " ".join(f"--data {name}=FOLDER" for name in missing)
        faults.append(f"the plan reads data sets that were not given: add {options}")
    if faults:
        raise UsageError("\n".join(faults))


def _existing(plan: Plan) -> dict[Existing, Port]:
    """Return the existing artifacts, each with a port that reads it: the strictest, if several."""
    ports: dict[Existing, Port] = {}
    for step in plan:
        for name, source in step.sources():
            if isinstance(source, Existing):
                port = step.stage.inputs[name.partition(".")[0]]
                if source not in ports or not port.foreign:
                    ports[source] = port
    return ports


def _is_left_alone(source: Existing, port: Port) -> bool:
    """Say whether a source is a data set in a bucket all of which would have to be fetched.

    Raises:
        DataError: if there is nothing.
    """
    if not (port.any_data and is_remote(source.uri)):
        return False
    bucket, key = bucket_and_key(source.uri)
    store = open_store(bucket)
    if not key or any(store.holds(f"{key}/{split}/{INDEX}") for split in SPLITS):
        return False
    if not store.holds(key):
        raise DataError(f"{source.uri}: the bucket has nothing there")
    return True


def _locate(source: Existing, port: Port, runs: Path) -> Path:
    if is_remote(source.uri):
        path = _fetch(source.uri, runs, sharded=port.any_data)
    else:
        path = local_path(source.uri).expanduser().absolute()
    if not path.exists():
        raise DataError(f"{source.uri}: there is no such file or folder")
    if port.takes_plain(path):
        return path
    if port.foreign and source.kind == "Model" and path.is_dir():
        path = weights_in(path)
    if path.is_file():
        if not port.foreign or source.kind == "Dataset":
            raise DataError(f"{source.uri} is a file; a {source.kind} artifact's folder is needed")
        return path
    manifest = verify(path)
    if manifest.kind != source.kind:
        raise DataError(
            f"{source.uri} is a {manifest.kind} made by {manifest.stage}; a {source.kind} is needed"
        )
    return path


def _fetch(uri: str, runs: Path, *, sharded: bool) -> Path:
    """Fetch a file or an artifact of a bucket; what was fetched before is used again.

    Of a data set in shards it is the index alone.
    """
    bucket, key = bucket_and_key(uri)
    if not key:
        raise DataError(f"{uri}: name a file or an artifact in the bucket, {uri}/KEY")
    store = open_store(bucket)
    entries = store.list(key)
    if not entries:
        raise DataError(f"{uri}: the bucket has nothing there")
    listing = "".join(f"{entry.key}\0{entry.size}\0{entry.etag}\n" for entry in entries)
    folder = runs / FETCHED / hashlib.sha256(f"{uri}\n{listing}".encode()).hexdigest()[:16]
    target = folder / key.rpartition("/")[2]
    if not target.exists():
        unfinished = folder.with_name(f".{folder.name}.{os.getpid()}") / target.name
        try:
            if [entry.key for entry in entries] == [key]:
                unfinished.parent.mkdir(parents=True)
                store.get(key, unfinished)
            elif not (sharded and fetch_index(store, key, unfinished)):
                store.get_folder(key, unfinished)
            folder.mkdir(parents=True, exist_ok=True)
            unfinished.replace(target)
        except KeyNotFound as error:
            raise DataError(f"{uri}: {error}") from None
        finally:
            shutil.rmtree(unfinished.parent, ignore_errors=True)
    return target


def _digest(path: Path) -> str:
    if path.is_file():
        return file_sha256(path)
    if (path / MANIFEST).exists():
        try:
            return read_manifest(path).digest
        except MocoError:
            pass  # a data set may have a file of that name
    return f"folder {describe(path).digest}"
