"""Starts steps from a process that has imported what they all import.

A step of the miniature takes some seconds, and four of them go into importing torch. Here one
process imports it, has no thread and uses no GPU, and forks a child for each step. The child is
handed to the runner, which waits for it and kills it like any other that it starts.
"""

import ctypes
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

MODULES = ("torch", "torchvision", "cv2", "PIL.Image")
"""What most steps import. None of ours: a step runs the code that is there when it starts."""
OURS = ("components", "pipelines")
LONGEST = 1 << 20  # bytes of a request
READY = b"ready"

_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class ForkServer:
    """The process that steps are forked from; it goes when this process goes."""

    def __init__(
        self, environment: Mapping[str, str], modules: Sequence[str] | None = None
    ) -> None:
        """Begin to start it; steps need not wait until it is ready.

        Args:
            environment: Variables that libraries read when they are imported: numbers of threads.
            modules: What it imports; `MODULES` by default.
        """
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ready = False
        names = MODULES if modules is None else modules
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", __name__, str(theirs.fileno()), str(os.getpid()), *names],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        if _LIBC is not None:
            _LIBC.prctl(_SET_CHILD_SUBREAPER, 1)  # a step becomes a child of this process

    def is_ready(self) -> bool:
        """Say whether it can fork; one that has ended never can."""
        if not self._ready:
            with suppress(OSError):
                self._ready = self._socket.recv(len(READY), socket.MSG_DONTWAIT) == READY
        return self._ready and self._process.poll() is None

    def fork(
        self, argv: Sequence[str], environment: Mapping[str, str], files: Sequence[int]
    ) -> int:
        """Start a step, a child of this process, and return its id.

        Args:
            argv: `-m MODULE ARGUMENT ...`.
            environment: All of its variables.
            files: Descriptor that gets stdout and stderr, and those that it inherits.

        Raises:
            OSError: if the server has ended.
        """
        request = {"argv": list(argv), "environment": dict(environment), "folder": str(Path.cwd())}
        socket.send_fds(self._socket, [json.dumps(request).encode()], files)
        answer = self._socket.recv(32)
        if not answer:
            raise ConnectionResetError("the process that steps are forked from has ended")
        return int(answer)

    def stop(self) -> None:
        """End it; the steps go on."""
        self._process.terminate()
        self._process.wait()
        self._socket.close()


def serve(server: socket.socket, runner: int) -> tuple[Mapping[str, Any], list[int]] | None:
    """Fork a child for each request; return the request in the child, nothing at the end."""
    while True:
        try:
            text, files, *_ = socket.recv_fds(server, LONGEST, 8)
        except OSError:
            return None
        if not text:
            return None
        read, write = os.pipe()
        middle = os.fork()
        if middle == 0:  # its only child is left to the runner when it has gone
            pid = os.fork()
            if pid:
                os.write(write, str(pid).encode())
                os._exit(0)
            os.close(read)
            os.close(write)
            server.close()
            while os.getppid() != runner:
                time.sleep(0.001)
            return json.loads(text), files
        os.waitpid(middle, 0)
        os.close(write)
        server.send(os.read(read, 32))
        for descriptor in (read, *files):
            os.close(descriptor)


def become(request: Mapping[str, Any], files: Sequence[int], runner: int) -> None:
    """Be the step that was asked for."""
    die_with(runner)
    os.setsid()
    os.dup2(files[0], 1)
    os.dup2(files[0], 2)
    os.close(files[0])
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]  # what finding this module has imported, as it was then
    _, module, *arguments = request["argv"]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def die_with(parent: int) -> None:
    """Let the kernel end this process, by SIGTERM, when its parent ends."""
    if _LIBC is not None:
        _LIBC.prctl(_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it has ended already
        os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Serve on an inherited socket: `FD RUNNER MODULE ...`."""
    descriptor, runner, *modules = sys.argv[1:]
    die_with(int(runner))
    for name in modules:
        with suppress(ImportError):  # the step says so, if it needs it
            importlib.import_module(name)
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        return  # threads do not survive a fork
    with socket.socket(fileno=int(descriptor)) as server:
        server.send(READY)
        asked = serve(server, int(runner))
    if asked:
        become(*asked, int(runner))


if __name__ == "__main__":
    main()
