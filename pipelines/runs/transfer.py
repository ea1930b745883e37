"""Fetches artifacts: many files at a time, each against its manifest, what fits already kept."""

import secrets
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from components.core.errors import DataError, DiskFullError
from components.core.manifest import MANIFEST, FileEntry, file_sha256
from components.core.store import FolderStore, HashMismatch
from components.core.store.base import TRANSFERS
from components.core.store.files import replacing
from components.core.store.keys import PART_SUFFIX, files_below, path_within
from pipelines.runs.artifacts import StoredArtifact
from pipelines.words import size

SPARE = 64 << 20  # bytes that a disk keeps
TICK = 0.2  # seconds


class Watch(Protocol):
    """What is told how a transfer goes."""

    def begin(self, artifacts: int, files: int, count: int) -> None:
        """Take note of what is to be fetched; `count` is in bytes."""

    def advance(self, count: int) -> None:
        """Take note of a file's bytes."""

    def tick(self) -> None:
        """Draw, if it is time to."""


@dataclass
class Transfer:
    """One artifact on its way to its folder, HTML to its file.

    Attributes:
        name: For people: `STEP.PORT`.
        stored: Where it lies.
        target: Where it goes.
        files: What has to be fetched, by name; the one of HTML is called ''.
        is_here: Whether all of it is there already.
    """

    name: str
    stored: StoredArtifact
    target: Path
    files: dict[str, FileEntry | None] = field(default_factory=dict)
    is_here: bool = False

    def key(self, name: str) -> str:
        """Return the key of a file in the store."""
        return "/".join(part for part in (self.stored.key, name) if part)

    def path(self, name: str) -> Path:
        """Return where a file goes.

        Raises:
            UnsafeKey: if that is outside of the target.
        """
        return path_within(self.target, name) if name else self.target

    def bytes_of(self, name: str) -> int:
        """Return how large a file is."""
        entry = self.files[name]
        return entry.size if entry else self.stored.size


def compare(transfers: Iterable[Transfer]) -> None:
    """Find out what of each artifact has to be fetched; what is wrong or left over is removed."""
    transfers = list(transfers)
    for transfer in transfers:
        _sweep(transfer)
    candidates = [
        (transfer, name, entry)
        for transfer in transfers
        if transfer.stored.manifest
        for name, entry in transfer.stored.manifest.files.items()
    ]
    with ThreadPoolExecutor(TRANSFERS) as pool:
        fits = pool.map(
            lambda candidate: _fits(candidate[0].path(candidate[1]), candidate[2]), candidates
        )
        for (transfer, name, entry), is_here in zip(candidates, fits, strict=True):
            if not is_here:
                transfer.files[name] = entry
    for transfer in transfers:
        transfer.is_here = not transfer.files and _is_announced(transfer)


def need_room(folder: Path, count: int) -> None:
    """Refuse what would fill a disk.

    Args:
        folder: On that disk.
        count: Bytes to write.

    Raises:
        DiskFullError: naming the folder.
    """
    free = shutil.disk_usage(folder).free
    if count and count + SPARE > free:
        raise DiskFullError(
            f"{folder}: {size(count)} have to be fetched, and {size(free)} are free; make room, "
            "or name another folder with --output"
        )


def fetch(transfers: Sequence[Transfer], watch: Watch | None = None) -> None:
    """Fetch what is missing, and put each manifest in its place when all else is there.

    An artifact that is not what its manifest says does not stop the others.

    Raises:
        DataError: naming all of those.
        StoreError: if the store cannot be reached or refuses.
        DiskFullError, NotWritableError: naming the folder.
    """
    faults: list[str] = []
    left = {id(transfer): len(transfer.files) for transfer in transfers}
    for transfer in transfers:
        if not transfer.files:
            _announce(transfer)
    # Large ones first, so that none is left alone at the end.
    work = sorted(
        ((transfer, name) for transfer in transfers for name in transfer.files),
        key=lambda move: -move[0].bytes_of(move[1]),
    )
    with ThreadPoolExecutor(TRANSFERS, thread_name_prefix="pull") as pool:
        moves = {
            pool.submit(_fetch_file, transfer, name): (transfer, name) for transfer, name in work
        }
        try:
            pending = set(moves)
            while pending:
                done, pending = wait(pending, TICK, FIRST_COMPLETED)
                for move in done:
                    transfer, name = moves[move]
                    try:
                        move.result()
                    except DataError as error:
                        faults.append(str(error))
                        continue
                    if watch:
                        watch.advance(transfer.bytes_of(name))
                    left[id(transfer)] -= 1
                    if not left[id(transfer)]:
                        _announce(transfer)
                if watch:
                    watch.tick()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if faults:
        raise DataError("\n".join(sorted(faults)))


def _sweep(transfer: Transfer) -> None:
    """Remove what an interrupted pull or an older artifact left in a target."""
    manifest, target = transfer.stored.manifest, transfer.target
    if manifest is None:
        if not target.is_file() or target.stat().st_size != transfer.stored.size:
            transfer.files[""] = None
        for unfinished in target.parent.glob(f".*{PART_SUFFIX}"):
            unfinished.unlink(missing_ok=True)
        return
    FolderStore(target).sweep()
    if not _is_announced(transfer):
        (target / MANIFEST).unlink(missing_ok=True)
    for name, path in files_below(target).items():
        if name not in manifest.files and name != MANIFEST:
            path.unlink()


def _is_announced(transfer: Transfer) -> bool:
    """Say whether the manifest is there; that of HTML is its name."""
    path = transfer.target / MANIFEST
    if transfer.stored.manifest is None:
        return True
    return path.is_file() and path.read_bytes() == transfer.stored.text


def _announce(transfer: Transfer) -> None:
    if transfer.stored.manifest:
        with replacing(transfer.target / MANIFEST, durable=False) as file:
            file.write(transfer.stored.text)


def _fits(path: Path, entry: FileEntry) -> bool:
    try:
        return path.stat().st_size == entry.size and file_sha256(path) == entry.sha256
    except OSError:
        return False


def _fetch_file(transfer: Transfer, name: str) -> None:
    """Fetch a file under another name, and give it its own when it is the right one."""
    entry, path = transfer.files[name], transfer.path(name)
    if entry is None:
        transfer.stored.store.get(transfer.key(name), path)
        return
    part = path.with_name(f".{secrets.token_hex(8)}{PART_SUFFIX}")
    try:
        for _ in range(2):
            try:
                digest = transfer.stored.store.get(transfer.key(name), part)
            except HashMismatch:
                continue
            if (part.stat().st_size, digest) == (entry.size, entry.sha256):
                part.replace(path)
                return
    finally:
        part.unlink(missing_ok=True)
    raise DataError(
        f"{transfer.name}: {transfer.stored.url}/{name} is not what its {MANIFEST} says, "
        f"{entry.size} bytes of SHA-256 {entry.sha256[:12]}, after fetching it twice. Somebody "
        "changed it: run the step again that made it, or restore the file"
    )
