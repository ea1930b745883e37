"""Runs a module, and notes which files of the project it executes or reads.

`python -m tests.pipelines.tracing TRACE -m MODULE ARGUMENT ...`, in a process in which nothing of
the project is imported yet; TRACE gets a path a line.
"""

import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = str(Path(__file__).parents[2] / "components") + os.sep


def traced(argv: Sequence[str], trace: Path) -> list[str]:
    """Return arguments of Python that do what others do, and note it."""
    return ["-m", __name__, str(trace), *argv]


def watch(trace: int) -> None:
    """Note files from now on; processes that are forked note theirs, too."""

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "exec":
            path = getattr(arguments[0], "co_filename", "")
        elif event == "open" and not str(arguments[0]).endswith((".py", ".pyc")):
            path = arguments[0]
        else:
            return
        if isinstance(path, str) and path.startswith(ROOT) and "__pycache__" not in path:
            os.write(trace, f"{path.removeprefix(ROOT)}\n".encode())

    sys.addaudithook(note)


if __name__ == "__main__":
    assert "components" not in sys.modules
    _, place, _, module, *arguments = sys.argv
    watch(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    sys.argv = ["", *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
