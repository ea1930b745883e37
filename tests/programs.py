"""Programs of this project, forked from a process that has imported torch.

A user's program imports it for some seconds; a test that is not about its start does without.
"""

import functools
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipelines.backends.local.forkserver import ForkServer

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
SECONDS = 120  # that imports may take on a busy machine


class Program(subprocess.Popen[str]):
    """`python -m MODULE ARGUMENT ...` as the leader of a session; its output goes into pipes."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start it.

        Args:
            argv: `-m MODULE ARGUMENT ...`.
            environment: Added to this process's variables.
        """
        super().__init__(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **ONE_THREAD, **(environment or {})},
        )

    def _execute_child(self, args: Sequence[str], *how: Any) -> None:
        """Do what Popen calls to start the program; all else of it is as ever."""
        environment, pipes = how[5], how[9:15]
        _, _, _, output, _, errors = pipes
        argv = ["-m", __name__, str(os.fstat(errors).st_ino), *args]
        self.pid = fork_server().fork(argv, environment, [output, errors])
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def run(
    argv: Sequence[str], environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    with Program(argv, environment) as program:
        output, errors = program.communicate()
    return subprocess.CompletedProcess(argv, program.returncode, output, errors)


@functools.cache
def fork_server() -> ForkServer:
    """Return the process that programs are forked from, one for each process of the tests."""
    return ready(ForkServer(ONE_THREAD))


def ready(server: ForkServer) -> ForkServer:
    """Return a server when it can fork."""
    deadline = time.monotonic() + SECONDS
    while not server.is_ready():
        assert time.monotonic() < deadline, "it ended, or has more than one thread"
        time.sleep(0.01)
    return server


def main() -> None:
    """Be a program whose errors go into the pipe of a number: `INODE -m MODULE ARGUMENT ...`."""
    inode, _, module, *arguments = sys.argv[1:]
    (errors,) = (fd for fd in range(3, 100) if _is_open(fd) and os.fstat(fd).st_ino == int(inode))
    os.dup2(errors, 2)
    os.close(errors)
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    _fork_trainings()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _is_open(descriptor: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{descriptor}")  # noqa: PTH110


def _fork_trainings() -> None:
    """Fork the processes of a training, too: nothing has been computed here that has threads."""
    from components.training import distributed

    configured = distributed._launch_config
    distributed._launch_config = lambda *of: replace(configured(*of), start_method="fork")


if __name__ == "__main__":
    main()
