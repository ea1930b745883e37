"""Manifests: what an artifact holds, what made it, and out of what.

An artifact is a folder whose `manifest.json` is written last and atomically; a
folder without one is not an artifact. The manifest carries the lineage of every
input, so a number can be followed to its data with no database.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from components.core.errors import DataError
from components.core.kind import ArtifactKind

MANIFEST = "manifest.json"
UNFINISHED = ".unfinished"  # stands in an output folder until the manifest does
HUGGING_FACE_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of the weights in a folder of Hugging Face, the better first."""
LISTED_FILES = 16  # a lineage names the files of an artifact up to this many


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Record):
    """Size (bytes) and SHA-256 of one file."""

    size: int
    sha256: str


class Code(_Record):
    """Which code ran: version, commit if known, digest of the sources that the stage reaches."""

    version: str
    commit: str | None
    digest: str


class Lineage(_Record):
    """Where an input came from.

    `stage`: an artifact of ours; `mount`: a data set folder; `file`: a single file from elsewhere.
    """

    origin: Literal["stage", "mount", "file"]
    name: str
    """`STAGE.PORT`, the folder or the file name."""
    digest: str | None = None
    """SHA-256 of the artifact's file table, or of the single file."""
    config: dict[str, JsonValue] | None = None
    code: Code | None = None
    image: str | None = None
    facts: dict[str, JsonValue] = Field(default_factory=dict)
    file_count: int = 0
    size: int = 0
    """Bytes."""
    files: dict[str, FileEntry] = Field(default_factory=dict)
    """The files, unless there are many."""
    inputs: dict[str, "Lineage"] = Field(default_factory=dict)


class Manifest(_Record):
    """The content of `manifest.json`; it holds no time, so the same work gives the same bytes."""

    format: Literal[1] = 1
    stage: str
    port: str
    kind: ArtifactKind
    config: dict[str, JsonValue]
    code: Code
    image: str
    facts: dict[str, JsonValue] = Field(default_factory=dict)
    files: dict[str, FileEntry]
    inputs: dict[str, Lineage] = Field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The SHA-256 of the file table: equal exactly when every file is equal."""
        table = "".join(f"{name}\0{e.size}\0{e.sha256}\n" for name, e in sorted(self.files.items()))
        return hashlib.sha256(table.encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files.values())

    def lineage(self) -> Lineage:
        """Summarise for the manifests of what is made from this artifact."""
        return Lineage(
            origin="stage",
            name=f"{self.stage}.{self.port}",
            digest=self.digest,
            config=self.config,
            code=self.code,
            image=self.image,
            facts=self.facts,
            file_count=len(self.files),
            size=self.size,
            files=self.files if len(self.files) <= LISTED_FILES else {},
            inputs=self.inputs,
        )


def file_sha256(path: Path) -> str:
    """Hash a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_folder(folder: Path) -> dict[str, FileEntry]:
    """Hash every file below a folder, in parallel, by its relative POSIX path.

    Raises:
        DataError: for a link or a special file: neither survives a store.
    """
    files = sorted(_files_below(folder))
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 1)) as pool:
        hashes = pool.map(file_sha256, files)
        return {
            path.relative_to(folder).as_posix(): FileEntry(size=path.stat().st_size, sha256=sha256)
            for path, sha256 in zip(files, hashes, strict=True)
        }


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` atomically; call it when all else is in the folder."""
    temporary = folder / f".{MANIFEST}.{os.getpid()}"
    with temporary.open("w", encoding="utf-8") as file:
        file.write(manifest.model_dump_json(indent=1))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / MANIFEST)


def read_manifest(folder: Path) -> Manifest:
    """Read a manifest without verifying the files.

    Raises:
        DataError: if there is none or it does not parse.
    """
    path = folder / MANIFEST
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"{folder} has no {MANIFEST}: it is not a finished artifact. Run the stage that makes "
            "it again; a plain data set folder is given with --mount.PORT instead"
        ) from None
    except (ValidationError, OSError) as error:
        raise DataError(f"{path} is not a manifest: {error}") from None
    for name in manifest.files:
        if not is_safe_name(name):
            raise DataError(f"{path} names {name!r}, which would leave its folder: refused")
    return manifest


def verify(folder: Path) -> Manifest:
    """Read a manifest and compare every file with it.

    Raises:
        DataError: naming the files that are missing, changed or not listed.
    """
    manifest = read_manifest(folder)
    present = hash_folder(folder)
    faults = [f"{name} is missing" for name in manifest.files if name not in present]
    faults += [f"{name} is not in the manifest" for name in present if name not in manifest.files]
    for name, entry in manifest.files.items():
        if name in present and present[name] != entry:
            faults.append(
                f"{name} has {present[name].size} bytes, SHA-256 {present[name].sha256[:12]}; "
                f"expected {entry.size} bytes, {entry.sha256[:12]}"
            )
    if faults:
        shown = "\n".join(f"  {fault}" for fault in faults[:20])
        more = f"\n  and {len(faults) - 20} more" if len(faults) > 20 else ""
        raise DataError(
            f"the artifact {folder} does not match its manifest:\n{shown}{more}\n"
            "Fetch it again, or run the stage that made it"
        )
    return manifest


def is_safe_name(name: str) -> bool:
    """Say whether a relative POSIX path stays inside its folder."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\\" not in name


def weights_in(folder: Path) -> Path:
    """Return the weights that a folder from elsewhere stands for; an artifact stands for itself.

    Raises:
        DataError: if it is neither an artifact nor a folder of Hugging Face.
    """
    if any((folder / name).exists() for name in (MANIFEST, UNFINISHED)):
        return folder
    for name in HUGGING_FACE_WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    held = sorted(path.name for path in folder.iterdir())
    raise DataError(
        f"{folder} has no {MANIFEST}, so it is no finished artifact, and no "
        f"{' or '.join(HUGGING_FACE_WEIGHTS)}: give the checkpoint file itself, one of "
        f"{', '.join(held[:LISTED_FILES]) or 'which there is none'}"
    )


def walk_lineage(
    inputs: Mapping[str, Lineage], depth: int = 0
) -> Iterator[tuple[int, str, Lineage]]:
    """Yield `(depth, port, lineage)` of all inputs, down to the data."""
    for port, lineage in inputs.items():
        yield depth, port, lineage
        yield from walk_lineage(lineage.inputs, depth + 1)


def _files_below(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files_below(Path(entry.path))
            elif not entry.is_file(follow_symlinks=False):
                raise DataError(
                    f"{entry.path} is a link or a special file; artifacts hold files only"
                )
            elif entry.name != MANIFEST or Path(entry.path).parent != folder:
                yield Path(entry.path)
