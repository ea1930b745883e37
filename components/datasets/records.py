"""JSON files that hold lists of records: what keeps them from being used is reported."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from components.datasets.fields import Record, Refusal, known_id, shown
from components.datasets.findings import Fault, Findings

Hook = Callable[[dict[str, Any]], Any]
"""Called with each JSON object as it is parsed; what it returns is put in its place."""


def read_lists(
    root: Path, name: str, lists: Sequence[str], findings: Findings, hook: Hook | None = None
) -> dict[str, list[Any]] | None:
    """Read a JSON object's lists.

    Args:
        root: The data set's folder.
        name: Of the file, relative to it.
        lists: Names of those that it must have.
        findings: Where faults go.
        hook: Called with each JSON object.

    Returns:
        The object, or None if it lacks a list or cannot be read.
    """
    try:
        document = json.loads((root / name).read_bytes(), object_hook=hook)
    except FileNotFoundError:
        findings.fault(name, "is missing")
        return None
    except OSError as error:
        findings.fault(name, f"cannot be read: {error.strerror}")
        return None
    except (ValueError, RecursionError) as error:
        findings.fault(name, f"is not JSON, perhaps half downloaded: {error}")
        return None
    if not isinstance(document, dict):
        findings.fault(name, f"is not a JSON object with the lists {', '.join(lists)}")
        return None
    missing = [field for field in lists if not isinstance(document.get(field), list)]
    for field in missing:
        told = f"has {shown(document[field])} for its" if field in document else "has no"
        findings.fault(name, f"{told} list {field!r}")
    return None if missing else document


def usable_records(
    name: str,
    what: str,
    records: Sequence[Any],
    usable: Callable[[Any], Record],
    findings: Findings,
    *,
    refused: set[int | None] | None = None,
) -> list[Record]:
    """Return the records of a list that can be used; report the others, and ids that are shared.

    Args:
        name: Of the file.
        what: The list is called.
        records: As parsed.
        usable: Returns a record as it is meant; raises Refusal.
        findings: Where faults go.
        refused: Takes the ids of those that cannot be used; None of one whose id nobody knows.
    """
    kept: list[Record] = []
    for position, record in enumerate(records):
        try:
            kept.append(usable(record))
        except Refusal as refusal:
            findings.faults.append(record_fault(name, f"{what}[{position}]", refusal, record))
            if refused is not None:
                refused.add(known_id(record))
    for identity, count in Counter(record["id"] for record in kept).items():
        if count > 1:
            findings.fault(name, f"{what}: {count} records share this id", identity)
    return kept


def record_fault(name: str, place: str, message: object, record: object) -> Fault:
    """Make a fault of a record: where it is, and what it is called.

    Args:
        name: Of the file.
        place: Of the record in it.
        message: What is wrong.
        record: As parsed, or its id.
    """
    identity = record.get("id") if isinstance(record, dict) else record
    known = isinstance(identity, (int, float, str))
    return Fault(name, f"{place}, id {shown(identity)}" if known else place, str(message))
