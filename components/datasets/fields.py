"""Fields of JSON records: what each kind must be, and what is taken for it.

Whole numbers that an export wrote as texts or floats are taken for what they are. All else is
refused with the field, the value and the way out.
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

Record = dict[str, Any]

_LARGEST = 2**63 - 1
_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,30}(\.0*)?\s*")
_MOST_NUMBER = 1e30  # what single precision makes of a larger one may be infinite
_SHOWN = 60  # characters of a value


class Refusal(Exception):  # noqa: N818 - a finding, not a failure
    """A record that cannot be used.

    Attributes:
        shape: Whether only its box or mask has no area: published sets have a few of these.
    """

    def __init__(self, message: str, *, shape: bool = False) -> None:
        """Say why; `message` goes on after the record's name."""
        super().__init__(message)
        self.shape = shape


def labelled_record(record: object, numbers: Sequence[str] = ("image_id", "category_id")) -> Record:
    """Return a record with `id` and further fields as whole numbers.

    Raises:
        Refusal: naming the field.
    """
    labelled = dict(as_mapping(record))
    for field in ("id", *numbers):
        labelled[field] = whole(labelled, field)
    return labelled


def named_record(record: object) -> Record:
    """Return a record with `id` as a number and `name` as a text.

    Raises:
        Refusal: naming the field.
    """
    named = labelled_record(record, ())
    if isinstance(named.get("name"), (int, float)) and not isinstance(named["name"], bool):
        named["name"] = str(named["name"])
    named["name"] = text(named, "name")
    return named


def file_name(record: Mapping[str, Any], field: str) -> str:
    """Return a file's name that stays in the folder that it is relative to.

    Raises:
        Refusal: naming the field.
    """
    name = text(record, field)
    if name.startswith("/") or ".." in name.split("/"):
        raise Refusal(f"has {field} {shown(name)}, which leads out of the data set's folder")
    return name


def known_id(record: object) -> int | None:
    """Return a record's id; None where it has none."""
    try:
        return whole(as_mapping(record), "id")
    except Refusal:
        return None


def shown(value: object) -> str:
    """Return a value as a message shows it."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def as_mapping(record: object) -> Mapping[str, Any]:
    """Return a record as the JSON object that it must be.

    Raises:
        Refusal: if it is none.
    """
    if not isinstance(record, dict):
        raise Refusal(f"is {shown(record)} instead of a JSON object")
    return record


def is_whole(value: object) -> bool:
    """Say whether a value is a whole number, also one that was written as a float."""
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, float) and value.is_integer()
    )


def whole(
    record: Mapping[str, Any], field: str, least: int | None = None, default: int | None = None
) -> int:
    """Return a whole number, also one that was written as text or float.

    Args:
        record: Whose field it is.
        field: Which.
        least: That it may be, below 2**31; None for any of 64 bits.
        default: Where the field is missing; None to refuse it then.

    Raises:
        Refusal: naming the field.
    """
    value = record.get(field, default)
    if type(value) is int and (-_LARGEST if least is None else least) <= value < 2**31:
        return value  # nearly always
    if value is None:
        raise Refusal(f"has no {field}")
    if isinstance(value, bool) and field == "iscrowd":
        value = int(value)
    number = None
    if is_whole(value):
        number = int(value)
    elif isinstance(value, str) and _WHOLE.fullmatch(value):
        number = int(value.partition(".")[0])
    if number is None:
        raise Refusal(f"has {field} {shown(value)} instead of a whole number")
    if abs(number) > _LARGEST or (least is not None and not least <= number < 2**31):
        allowed = f"from {least} to {2**31 - 1}" if least is not None else "of 64 bits"
        raise Refusal(f"has {field} {shown(value)}, which is not a number {allowed}")
    return number


def number(record: Mapping[str, Any], field: str, default: float) -> float:
    """Return a number that single precision holds.

    Raises:
        Refusal: naming the field.
    """
    value = record.get(field, default)
    if not is_number(value):
        raise Refusal(f"has {field} {shown(value)} instead of a number")
    return float(value)


def is_number(value: object) -> bool:
    """Say whether a value is a number that single precision holds."""
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) < _MOST_NUMBER
    )


def text(record: Mapping[str, Any], field: str) -> str:
    """Return a text that is not empty and can be a file's name.

    Raises:
        Refusal: naming the field.
    """
    value = record.get(field)
    if value is None:
        raise Refusal(f"has no {field}")
    if not isinstance(value, str) or not value.strip():
        raise Refusal(f"has {field} {shown(value)} instead of a text")
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        raise Refusal(f"has {field} {shown(value)} with half of a character") from None
    if "\0" in value:
        raise Refusal(f"has {field} {shown(value)} with a null character")
    return value
