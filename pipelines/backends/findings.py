"""What the check of a backend found, in words, with the way out."""

from dataclasses import dataclass
from typing import Literal

from components.core.errors import ExitCode

State = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Attributes:
        state: `skipped` if it could not be looked at.
        words: What was found: the thing, its value.
        way_out: Commands and values to set, any of which helps.
        code: The exit code of a failure.
        check: The check's name.
    """

    state: State
    words: str
    way_out: tuple[str, ...] = ()
    code: ExitCode = ExitCode.OK
    check: str = ""
