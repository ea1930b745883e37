"""What a training that is under way has recorded: its last checkpoint in a store says it."""

import json
import re
from collections.abc import Mapping
from typing import Any

from components.core.errors import DataError
from components.core.store import Store

Row = Mapping[str, float]
"""Figures by name, with `step`."""

_SAVED = re.compile(r"(.*\.state/checkpoints/\d+)/manifest\.json")


def read_history(store: Store, prefix: str) -> list[Row]:
    """Read the history of a step's newest attempt from its newest checkpoint.

    Args:
        store: Of the run.
        prefix: Of the step's keys.

    Returns:
        Its rows, the oldest first; none without a checkpoint.

    Raises:
        DataError: if the checkpoint cannot be read.
        StoreError: if the store cannot be reached.
    """
    saved = [match[1] for entry in store.list(prefix) if (match := _SAVED.fullmatch(entry.key))]
    if not saved:
        return []
    newest = max(saved, key=lambda place: place.rpartition("/")[2])
    try:
        state = _mapping(json.loads(store.read(f"{newest}/state.json")))
        return [_mapping(row) for row in state["history"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{store.url}/{newest} is no checkpoint: {error}") from None


def _mapping(value: Any) -> dict[str, Any]:
    """Read a mapping as checkpoints write it: a list of pairs, because keys may be numbers."""
    return dict(value["dict"])
