"""Reads JSON annotation files for a check: what keeps records from being used is reported."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.vision.check.files import Size
from components.vision.check.findings import Findings

Record = dict[str, Any]
Lists = Mapping[str, Sequence[str]]
"""The lists of a document, and the fields that each of their records must have."""


def read_records(
    root: Path, file: str, lists: Lists, findings: Findings
) -> dict[str, list[Record]] | None:
    """Read the records of an annotation file that have all their fields; report the others."""
    try:
        document = json.loads((root / file).read_bytes())
    except FileNotFoundError:
        findings.fault(file, "is missing")
        return None
    except OSError as error:
        findings.fault(file, f"cannot be read: {error.strerror}")
        return None
    except ValueError as error:
        findings.fault(file, f"is not JSON, perhaps half downloaded: {error}")
        return None
    if not isinstance(document, dict):
        findings.fault(file, "is not a JSON object")
        return None
    return {
        name: _whole_records(file, name, document, fields, findings)
        for name, fields in lists.items()
    }


def report_repeated(
    file: str, documents: Mapping[str, Sequence[Record]], findings: Findings
) -> None:
    """Report ids that several records of a list share."""
    for name, records in documents.items():
        for identity, count in repeated(record["id"] for record in records):
            findings.fault(file, f"{name}: {count} records share this id", identity)


def repeated(values: Iterable[Any]) -> list[tuple[Any, int]]:
    """Return the values that occur more than once, and how often."""
    return [(value, count) for value, count in Counter(values).items() if count > 1]


def record_size(image: Record) -> Size | None:
    """Return the size that an image's record says, if it does."""
    width, height = image.get("width"), image.get("height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None


def _whole_records(
    file: str, name: str, document: Record, fields: Sequence[str], findings: Findings
) -> list[Record]:
    if not isinstance(document.get(name), list):
        findings.fault(file, f"has no list {name!r}")
        return []
    whole = []
    for position, record in enumerate(document[name]):
        if not isinstance(record, dict):
            findings.fault(file, "is not a JSON object", f"{name}[{position}]")
            continue
        missing = [field for field in fields if field not in record]
        if missing:
            identity = record.get("id", f"{name}[{position}]")
            findings.fault(file, f"{name}: a record has no {', '.join(missing)}", identity)
        else:
            whole.append(record)
    return whole
