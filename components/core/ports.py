"""Gives local paths for ports that are URLs; what is in a bucket passes through scratch."""

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from components.core.errors import DataError, NotWritableError
from components.core.log import get_logger
from components.core.publish import Publication
from components.core.store import KeyNotFound, is_remote, local_path, open_store
from components.core.store.place import Place, Places
from components.core.store.probe import probe
from components.core.store.shards import fetch_index

IN_CODE_DIGEST = False  # it carries artifacts, which are verified by their hashes

log = get_logger(__name__)


class Ports:
    """Gives local paths for ports that may be URLs, until the block ends.

    Attributes:
        helper: This is a node of a training that another node, torchrun's first, answers for: it
            reads and works as that one does, and what is left in its outputs belongs to nobody.
    """

    def __init__(self, outputs: Mapping[str, str], views: Set[str]) -> None:
        """Open what the outputs need, without touching the network.

        Args:
            outputs: The path or URL of each output port.
            views: The outputs that are a single file.
        """
        self.helper = os.environ.get("PET_NODE_RANK", "0") not in ("", "0")
        self._outputs = outputs
        self._places = Places()
        self._stack = ExitStack()
        self._remote: dict[str, Place] = {}
        if not self.helper:
            self._remote = {
                port: self._places.find(url) for port, url in outputs.items() if is_remote(url)
            }
        self._views = views

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        frames: TracebackType | None,
    ) -> None:
        self._stack.close()

    def check(self, inputs: Iterable[str], state: str | None) -> None:
        """Fail within seconds if a bucket cannot be used as it must be, or an output is taken.

        Args:
            inputs: Paths or URLs.
            state: Path or URL of in-flight state, if it is kept.

        Raises:
            StoreError, NotWritableError, UsageError: naming the URL.
        """
        written = [place.url for place in self._remote.values()]
        read = [url for url in inputs if is_remote(url)]
        if state and is_remote(state):
            (read if self.helper else written).append(state)
        for url in _one_of_each_bucket(read):
            open_store(url).check()
        for url in _one_of_each_bucket(written):
            probe(open_store(url.rstrip("/").rpartition("/")[0]))
        if self._remote:
            self._publication.begin()

    def input(self, name: str, source: str, *, sharded: bool = False) -> Path:
        """Return the path of an input, fetched if it is in a bucket; not verified yet.

        Args:
            name: The input.
            source: Its path or URL.
            sharded: Whether it may be a data set in shards, of which the index is fetched alone.

        Raises:
            DataError: when there is nothing.
        """
        if not is_remote(source):
            return local_path(source)
        place = self._places.find(source)
        if sharded:
            folder = self._scratch / "inputs" / name / place.key.rpartition("/")[2]
            if fetch_index(place.store, place.key, folder):
                log.info("reading shards where they are", input=name, url=place.url)
                return folder
        log.info("fetching", input=name, url=place.url)
        try:
            return place.fetch(self._scratch / "inputs" / name)
        except KeyNotFound:
            raise DataError(f"input {name}: {source} does not exist") from None

    def output(self, name: str) -> Path:
        """Return where an output is to be made."""
        if name in self._remote or self.helper:
            return self._scratch / "outputs" / name
        return local_path(self._outputs[name])

    def upload(self) -> None:
        """Put the finished outputs that belong into a bucket there.

        Raises:
            NotWritableError: when another attempt was first, and made something else.
        """
        if self._remote:
            log.info("uploading", outputs={port: place.url for port, place in self._remote.items()})
            self._publication.finish({port: self.output(port) for port in self._remote})

    @cached_property
    def _publication(self) -> Publication:
        remote = self._remote.items()
        return Publication(
            {port: place for port, place in remote if port not in self._views},
            {port: place for port, place in remote if port in self._views},
        )

    @cached_property
    def _scratch(self) -> Path:
        try:
            folder = tempfile.TemporaryDirectory(prefix="moco-", ignore_cleanup_errors=True)
        except OSError as error:
            raise NotWritableError(
                f"no place for what is fetched from a bucket or goes there: {error.strerror}; set "
                "TMPDIR to a folder with room that this user may write"
            ) from None
        return Path(self._stack.enter_context(folder))


def _one_of_each_bucket(urls: Iterable[str]) -> Iterator[str]:
    """Pick a URL for every bucket: rights may hold for a part of it only, so not its root."""
    yield from {url.split("/")[2]: url for url in urls}.values()
