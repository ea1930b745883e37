"""What reading a data set has to say: faults, notes, and counts.

A reader collects all faults that it meets. Training refuses a data set with any (`refuse`), and
`moco data check` lists them: both read by the same code.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from components.core.errors import DataError
from components.core.log import get_logger

log = get_logger(__name__)

TOLERATED = 0.001
"""Share of records without what they need: train2017 has one box without area among 860,001."""
_SHOWN = 10
Read = TypeVar("Read")


@dataclass(frozen=True)
class Fault:
    """Something that would fail, or silently be wrong, in training.

    Attributes:
        file: The file or folder, relative to the data set's folder.
        id: The image, annotation or category in it; empty if the file itself is meant.
        message: What is wrong, and the way out where there is one.
    """

    file: str
    id: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}{f' [{self.id}]' if self.id else ''}: {self.message}"


@dataclass
class Findings:
    """All that was found.

    Attributes:
        faults: In the order of discovery.
        notes: What is not wrong, but worth a look, such as unusual counts.
        counts: How much of what there is.
    """

    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def fault(self, file: str, message: str, id: object = "") -> None:  # noqa: A002
        """Add a fault."""
        self.faults.append(Fault(file, str(id), message))

    def tolerate(self, faults: Sequence[Fault], records: int, share: float) -> None:
        """Add faults of records that are left out: as notes, if no more than published sets have.

        Args:
            faults: One of each such record.
            records: How many there are in all.
            share: The most of them that may be left out.
        """
        if len(faults) > share * records:
            self.faults += faults
        else:
            self.notes += [f"{fault}; it is left out" for fault in faults]

    def compare(self, published: Mapping[str, int], name: str) -> None:
        """Note each count that is not the published one: half-unpacked downloads show here."""
        for key, expected in published.items():
            count = self.counts.get(key, 0)
            if count != expected:
                self.notes.append(f"{key}: {count:,} found, {name} as published has {expected:,}")

    def refuse(self, root: Path, kind: str) -> None:
        """Refuse the data set if it has a fault.

        Args:
            root: Its folder.
            kind: What `moco data check` calls its layout.

        Raises:
            DataError: with the first faults.
        """
        if not self.faults:
            return
        shown = "".join(f"\n  {fault}" for fault in self.faults[:_SHOWN])
        more = len(self.faults) - _SHOWN
        rest = f"\n  and {more} more" if more > 0 else ""
        raise DataError(
            f"{root} cannot be used as it is; `moco data check {kind} {root}` lists every fault:"
            f"{shown}{rest}"
        )


def strictly(read: Callable[[Findings], Read | None], root: Path, kind: str) -> Read:
    """Read for training: without a fault, or not at all.

    Raises:
        DataError: with the first faults.
    """
    findings = Findings()
    result = read(findings)
    findings.refuse(root, kind)
    assert result is not None, "what could not be read is a fault"
    for note in findings.notes[:1]:
        log.warning("read with exceptions", count=len(findings.notes), first=note)
    return result
