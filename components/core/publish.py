"""Uploads finished outputs; of several attempts at the same outputs one wins, whole."""

import json
import secrets
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from components.core.errors import NotWritableError, StoreError
from components.core.log import get_logger
from components.core.manifest import MANIFEST, file_sha256
from components.core.store import KeyNotFound
from components.core.store.keys import files_below
from components.core.store.place import Place

PATIENCE = 600  # seconds after which a claim that nobody took back is that of a dead attempt
POLL = 2  # seconds

IN_CODE_DIGEST = False  # it carries artifacts, which are verified by their hashes

log = get_logger(__name__)


class Publication:
    """The outputs of one attempt, on their way into a bucket.

    A small object beside the first output, the claim, is written before the first file and
    deleted after the last manifest. It is for the bucket what the mark of an unfinished output
    is for a folder, and of several attempts only the one whose claim it is uploads. So nobody
    overwrites the files of another, unless they are equal, or the other is dead: an attempt
    whose upload takes longer than `PATIENCE` while another attempt has made something else
    finds its claim gone, and leaves. Readers verify the manifest in every case.
    """

    def __init__(self, folders: Mapping[str, Place], views: Mapping[str, Place]) -> None:
        """Plan the upload of at least one output.

        Args:
            folders: Where artifacts with a manifest go, by port.
            views: Where single files go, by port; the newest may replace another.
        """
        self._folders = folders
        self._views = views
        first = next(iter((folders or views).values()))
        self._store = first.store
        self._claim = f"{first.key}.claim"
        self._seen: tuple[bytes | None, float] = (None, 0.0)

    def begin(self) -> None:
        """Refuse, before any work, a place that is taken; note a claim that is there already.

        Raises:
            NotWritableError: naming the place.
        """
        held = {
            place.url: {entry.key.removeprefix(f"{place.key}/") for entry in listed}
            for place in self._folders.values()
            if (listed := place.store.list(place.key))
        }
        finished = [url for url, names in held.items() if MANIFEST in names]
        if self._look() is not None and len(finished) < len(self._folders):
            return  # what an attempt that did not finish left is replaced at the end
        for url in held:
            what = "a finished artifact" if url in finished else "other files"
            raise NotWritableError(
                f"the output {url} already holds {what}; remove it or name another place"
            )

    def finish(self, made: Mapping[str, Path]) -> None:
        """Upload all outputs, every manifest after all files.

        Raises:
            NotWritableError: when another attempt was first, and made something else.
        """
        mine = _contents(made)
        if self._win(mine):
            for port, place in self._folders.items():
                self._remove_leftovers(place, made[port])
                place.store.put_folder(made[port], place.key, manifest=False)
            if _claimed(self._look()) == mine:
                self._complete(made)
        for port, place in self._folders.items():
            if _manifest_at(place) != (made[port] / MANIFEST).read_bytes():
                raise self._lost()

    def _complete(self, made: Mapping[str, Path]) -> None:
        for port, place in self._views.items():
            place.store.put(made[port], place.key)
        for port, place in self._folders.items():
            manifest = (made[port] / MANIFEST).read_bytes()
            place.store.write(f"{place.key}/{MANIFEST}", manifest, if_absent=True)
        with suppress(StoreError):  # all is there; the claim alone harms nobody
            self._store.delete(self._claim)

    def _win(self, mine: dict[str, str]) -> bool:
        """Claim the outputs; return False when another attempt has finished them."""
        claim = json.dumps({"by": f"{socket.gethostname()} {secrets.token_hex(8)}", "of": mine})
        while not self._store.write(self._claim, claim.encode(), if_absent=True):
            theirs = self._look()
            if theirs is None:
                continue  # finished just now
            if _claimed(theirs) == mine:
                break  # equal files: no matter who writes them
            if self._is_finished():
                return False
            if time.monotonic() - self._seen[1] > PATIENCE:
                log.warning("taking over from an attempt that did not finish", claim=self._claim)
                self._store.delete(self._claim)
                continue
            log.info("another attempt is uploading these outputs; waiting", claim=self._claim)
            time.sleep(POLL)
        if not self._is_finished():
            return True
        self._store.delete(self._claim)
        return False

    def _look(self) -> bytes | None:
        """Read the claim that is there, and note since when it has been the same."""
        try:
            claim = self._store.read(self._claim)
        except KeyNotFound:
            return None
        if claim != self._seen[0]:
            self._seen = (claim, time.monotonic())
        return claim

    def _is_finished(self) -> bool:
        """Say whether every output has its manifest."""
        manifests = [_manifest_at(place) for place in self._folders.values()]
        return bool(manifests) and None not in manifests

    def _remove_leftovers(self, place: Place, folder: Path) -> None:
        """Delete what a dead attempt left and this one does not overwrite."""
        # First, lest a manifest be deleted that an equal attempt writes between the two looks.
        entries = place.store.list(place.key)
        names = set(files_below(folder))
        if _manifest_at(place) != (folder / MANIFEST).read_bytes():
            names.remove(MANIFEST)
        for entry in entries:
            if entry.key.removeprefix(f"{place.key}/") not in names:
                place.store.delete(entry.key)

    def _lost(self) -> NotWritableError:
        urls = ", ".join(place.url for place in (*self._folders.values(), *self._views.values()))
        return NotWritableError(
            f"another attempt was first with {urls}, and made something else: what it wrote was "
            "left as it is, and what this attempt made is dropped. Name another place to keep both"
        )


def _contents(made: Mapping[str, Path]) -> dict[str, str]:
    """Give for each output the SHA-256 of its file, or of its manifest, which has all others."""
    return {
        port: file_sha256(path if path.is_file() else path / MANIFEST)
        for port, path in made.items()
    }


def _claimed(claim: bytes | None) -> object:
    """Return what a claim says that its attempt made; None without a claim."""
    if claim is None:
        return None
    try:
        return json.loads(claim)["of"]
    except (ValueError, LookupError, TypeError):
        return "something else"


def _manifest_at(place: Place) -> bytes | None:
    try:
        return place.store.read(f"{place.key}/{MANIFEST}")
    except KeyNotFound:
        return None
