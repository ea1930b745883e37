"""Runs commands of stages, and notes which files of the project each of them executes or reads.

`python -m tests.pipelines.tracing COMMANDS TRACES`: COMMANDS is JSON, a list of arguments by name;
TRACES gets one file of paths for each. Every command runs in a process of its own, in which nothing
of the project is imported yet; what is slow to import, and not the project's, is.
"""

import importlib
import json
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = str(Path(__file__).parents[2] / "components") + os.sep
SLOW = ("torch.utils.tensorboard", "torchvision", "cv2", "scipy", "hotcoco", "jinja2", "pydantic")


def watch(trace: int) -> None:
    """Note files from now on; processes that are forked note theirs, too."""

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "exec":
            path = getattr(arguments[0], "co_filename", "")
        elif event == "open" and not str(arguments[0]).endswith((".py", ".pyc")):
            path = arguments[0]
        else:
            return
        if isinstance(path, str) and path.startswith(ROOT):
            os.write(trace, f"{path.removeprefix(ROOT)}\n".encode())

    sys.addaudithook(note)


def run(arguments: Sequence[str], trace: Path) -> None:
    """Run `python -m MODULE ...` in a forked process; exit if it fails."""
    child = os.fork()
    if child == 0:
        watch(os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
        sys.argv = ["", *arguments[2:]]
        try:
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        except SystemExit as done:
            os._exit(int(done.code or 0))
        os._exit(1)
    _, status = os.waitpid(child, 0)
    if code := os.waitstatus_to_exitcode(status):
        sys.exit(f"{trace.name} ended with {code}")


if __name__ == "__main__":
    for name in SLOW:
        importlib.import_module(name)
    commands, traces = map(Path, sys.argv[1:])
    for name, command in json.loads(commands.read_text()).items():
        run(command, traces / name)
    assert "components" not in sys.modules
