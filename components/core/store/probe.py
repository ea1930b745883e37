"""Tells whether a store can be used from here: `python -m components.core.store.probe URL`."""

import json
import os
import secrets
import sys
from collections.abc import Sequence

from components.core import store_environment
from components.core.errors import ExitCode, MocoError, StoreError, UsageError
from components.core.log import scrub
from components.core.store import NotAllowed, Store, open_store

CONTENT = b"written to find out whether this can be written; deleted at once\n"
RETRY_SECONDS = "5"  # a store that is only busy answers by then; people wait for this


def probe(store: Store) -> None:
    """Write, read and delete a small file of a name that nobody else has.

    Raises:
        NotAllowed: if the store may be read only.
        StoreError: if it cannot be reached, or refuses, or gives back something else.
    """
    store.check()
    key = f".probe-{secrets.token_hex(8)}"
    try:
        store.write(key, CONTENT)
    except NotAllowed as error:
        raise NotAllowed(f"{store.url} may be read, but not written: {error}") from None
    try:
        content = store.read(key)
    finally:
        store.delete(key)
    if content != CONTENT:
        raise StoreError(f"{store.url} gave back something else than was written at {key}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Probe a store, print one JSON line with `ok` and `words`, and return the exit code."""
    urls = sys.argv[1:] if arguments is None else arguments
    os.environ.setdefault(store_environment.RETRY_SECONDS[0], RETRY_SECONDS)
    try:
        if len(urls) != 1:
            raise UsageError("usage: python -m components.core.store.probe URL")
        probe(open_store(urls[0]))
    except MocoError as error:
        return answer(error.exit_code, str(error))
    return answer(ExitCode.OK, f"{urls[0]}: written, read and deleted")


def answer(code: ExitCode, words: str) -> int:
    """Print what was found as one JSON line, and return the exit code."""
    sys.stdout.write(f"{json.dumps({'ok': code == ExitCode.OK, 'words': scrub(words)})}\n")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
