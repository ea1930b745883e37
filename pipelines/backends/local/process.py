"""One step as a process group of its own, which never outlives its runner."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.backends.local.forkserver import ForkServer, die_with

GRACE = 60.0  # seconds that a step has to save after SIGTERM

MARK = "MOCO_PROCESS"  # variable by which everything that a step starts is known


@dataclass
class StepProcess:
    """A running step.

    Its first process gets SIGTERM, as in a pod, and saves; whatever it started
    and left behind when it has gone is killed, in sessions of their own too, as
    torchrun's workers are. If the runner itself dies, the kernel sends the SIGTERM.
    """

    process: "subprocess.Popen[bytes] | ForkedProcess"
    mark: str
    terminated: float | None = field(default=None)

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        keep: Sequence[int],
        server: ForkServer | None = None,
    ) -> "StepProcess":
        """Start a process whose output is appended to a log.

        Args:
            argv: Arguments of the interpreter: `-m MODULE ...`.
            environment: Added to this process's.
            log: File that gets stdout and stderr.
            keep: Descriptors that the process inherits.
            server: Forks it, if it is ready.
        """
        mark = f"{MARK}={secrets.token_hex(16)}"
        marked = dict([mark.split("=")])
        variables = {**os.environ, **import_path(), **environment, **marked}
        with log.open("ab") as output:
            if server and server.is_ready():
                with suppress(OSError):
                    pid = server.fork(argv, variables, [output.fileno(), *keep])
                    return cls(ForkedProcess(pid), mark)
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, *argv],
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=keep,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - the runner starts steps from one thread
            )
        return cls(process, mark)

    @property
    def pid(self) -> int:
        """The process id, and the id of the group."""
        return self.process.pid

    def poll(self) -> int | None:
        """Return the exit code if the step has ended, its whole group then being gone.

        A signal's number is negative, as in `subprocess`.
        """
        if self.process.returncode is None:
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            if os.waitid(os.P_PID, self.pid, options) is None:
                if self.terminated and time.monotonic() - self.terminated > GRACE:
                    self.kill()
                return None
            self.kill()  # the group's id is taken until its leader is reaped below
            self.process.wait()
        return self.process.returncode

    def terminate(self) -> None:
        """Ask the step to save and stop; after GRACE seconds `poll` kills it."""
        if self.terminated is None:
            self.terminated = time.monotonic()
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the whole group, and everything else that the step started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        for pid in _carrying(self.mark):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


@dataclass
class ForkedProcess:
    """A child of this process that another one has forked."""

    pid: int
    returncode: int | None = None

    def wait(self) -> int:
        """Wait for its end, and return its exit code or, negative, its signal."""
        if self.returncode is None:
            _, status = os.waitpid(self.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)


def describe_exit(code: int) -> tuple[int, str]:
    """Return a shell's exit code, and words for a step that a signal ended."""
    if code >= 0:
        return code, ""
    name = signal.Signals(-code).name
    words = f"ended by {name}"
    if -code == signal.SIGKILL:
        words += "; if nobody sent it, the machine ran out of memory: fewer --jobs may help"
    return 128 - code, words


def _carrying(mark: str) -> Iterator[int]:
    """Yield the processes that have a mark in their environment."""
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended, or is somebody else's
            if mark.encode() in environment.read_bytes().split(b"\0"):
                yield int(environment.parent.name)


def import_path() -> dict[str, str]:
    """Make a step import what this process imports, whatever lies in its working directory."""
    entries = [str(Path(entry).absolute()) for entry in sys.path if entry]
    if "" in sys.path:
        entries.insert(0, str(Path.cwd()))
    return {"PYTHONPATH": os.pathsep.join(entries), "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}


def _die_with_parent() -> None:
    die_with(os.getppid())
