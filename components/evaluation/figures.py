"""What an evaluation says: figures in percent, for all classes and for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from components.core.errors import DataError

SHOWN = 5  # faults that an error spells out


@dataclass(frozen=True)
class Figures:
    """Figures of one evaluation, in percent.

    Attributes:
        values: By metric name. A metric that the ground truth leaves undefined (no rare class,
            no large object) is left out, never zero.
        per_class: The main metric by class name; classes without ground truth are left out.
    """

    values: Mapping[str, float]
    per_class: Mapping[str, float] = field(default_factory=dict)


def refuse(source: object, faults: Sequence[str], way_out: str) -> None:
    """Raise what is wrong with a file, if anything is.

    Args:
        source: The file, as it is called in the message.
        faults: One sentence each.
        way_out: What to do about them.

    Raises:
        DataError: with the first faults, and how many there are.
    """
    if not faults:
        return
    more = f"; and {len(faults) - SHOWN:,} more" if len(faults) > SHOWN else ""
    raise DataError(f"{source}: {'; '.join(faults[:SHOWN])}{more}. {way_out}")
