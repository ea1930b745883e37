"""What a check has to say: faults, notes, and counts."""

from dataclasses import dataclass, field


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
    """All that a check found.

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

    def compare(self, published: dict[str, int], name: str) -> None:
        """Note each count that is not the published one: half-unpacked downloads show here."""
        for key, expected in published.items():
            found = self.counts.get(key, 0)
            if found != expected:
                self.notes.append(f"{key}: {found:,} found, {name} as published has {expected:,}")
