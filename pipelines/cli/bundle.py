"""Collects what a report of a fault needs into one file that may be given away."""

import importlib.metadata
import json
import os
import platform
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from components.core.errors import MocoError, NotWritableError, UsageError, of_os_error
from components.core.version import commit, image
from pipelines.backends.local.machine import this_machine
from pipelines.cli.redaction import Redactor
from pipelines.plan import Plan
from pipelines.runs.folder import Run, runs_folder
from pipelines.runs.logs import Event, last_attempt, read_log, tail
from pipelines.runs.record import PLAN, RECORD, STATUS

LINES = 200  # of a step's log
BEFORE = 100  # lines before those, in which a credential of several lines may begin
OS_RELEASE = Path("/etc/os-release")
DRIVER = Path("/proc/driver/nvidia/version")
README = "README.txt"

Events = Callable[[str], Sequence[Event]]
"""Returns what is left of what a step of a run said; raises MocoError."""


@contextmanager
def reserved(path: Path) -> Iterator[IO[bytes]]:
    """Take a new file before any work is done for it; it is removed if the work fails.

    Raises:
        UsageError: if it is not called like a zip file, or is a folder.
        NotWritableError, DiskFullError: if it is there already, or cannot be written.
    """
    try:
        if path.is_dir():
            raise UsageError(
                f"--bundle {path} is a folder; name a file in it: {path / 'moco-bundle.zip'}"
            )
        if path.suffix.lower() != ".zip":
            raise UsageError(f"--bundle {path}: the file is a zip; call it {path.name}.zip")
        if not path.parent.exists():
            raise NotWritableError(
                f"--bundle {path}: there is no folder {path.parent}; make it, or name another"
            )
        file = open(path, "xb", opener=_private)  # noqa: SIM115 - only this takes an opener
    except FileExistsError:
        raise NotWritableError(f"--bundle {path} exists already; name another file") from None
    except OSError as error:
        raise _unwritable(error, path) from None
    try:
        with file:
            yield file
    except BaseException as error:
        with suppress(OSError):
            path.unlink()
        if isinstance(error, OSError):
            raise _unwritable(error, path) from None
        raise


@dataclass
class Bundle:
    """The files of a bundle, without credentials from the moment that they are put in.

    Attributes:
        redactor: Blanks them.
        files: Contents by name.
        lacking: What could not be had, and why.
    """

    redactor: Redactor
    files: dict[str, str] = field(default_factory=dict)
    lacking: list[str] = field(default_factory=list)

    def add_text(self, name: str, text: str) -> None:
        """Put in a text."""
        self.files[name] = f"{self.redactor.text(text)}\n"

    def add(self, name: str, value: Any) -> None:
        """Put in what JSON can say."""
        plain = json.loads(json.dumps(value, default=str))
        self.files[name] = f"{json.dumps(self.redactor.value(plain), indent=1)}\n"

    def lacks(self, words: str) -> None:
        """Note what could not be had."""
        self.lacking.append(self.redactor.text(words))

    def add_machine(self) -> None:
        """Put in versions, the platform, what the machine has, and the names of variables."""
        packages = _packages()
        self.add(
            "versions.json",
            {
                "moco-transfer": packages.get("moco-transfer", "not installed"),
                "commit": commit(),
                "image": image(),
                "python": sys.version,
                "platform": platform.platform(),
                "system": _first_line(OS_RELEASE, "PRETTY_NAME="),
                "driver": _first_line(DRIVER),
                "packages": dict(sorted(packages.items(), key=lambda package: package[0].lower())),
            },
        )
        machine = this_machine()
        self.add(
            "machine.json",
            {
                "cores": machine.cores,
                "gpus": len(machine.gpus),
                "gpu": machine.gpu_name,
                "steps at a time": machine.jobs,
                "memory, bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
                "runs": str(runs_folder()),
                "free there, bytes": _free(runs_folder()),
            },
        )
        self.add_text("environment.txt", "\n".join(sorted(os.environ)))

    def add_plan(self, plan: Plan) -> None:
        """Put in a plan."""
        self.add("plan.json", json.loads(plan.to_json()))

    def add_run(self, run: Run, events: Events | None = None) -> None:
        """Put in a run's record, its plan, and of each step its status and last lines.

        They are taken as they lie there: a bundle may be about a damaged one.

        Args:
            run: The run.
            events: What steps of a submitted run said.
        """
        for name in (RECORD, PLAN):
            self._add_file(f"run/{name}", run.folder / name)
        try:
            self.add("run/state.json", {"state": run.state, "folder": str(run.folder)})
        except (MocoError, OSError) as error:
            self.lacks(f"what became of run {run.id}: {error}")
        for status in sorted(run.folder.glob(f"*/{STATUS}")):
            step = status.parent.name
            self._add_file(f"run/{step}/{STATUS}", status)
            try:
                said = events(step) if events else read_log(run.log(step))
            except (MocoError, OSError) as error:
                self.lacks(f"the log of {step}: {error}")
                continue
            if said:
                self.files[f"run/{step}/log.txt"] = self._last_lines(said)

    def write(self, file: IO[bytes]) -> None:
        """Write all as a zip file.

        Raises:
            OSError: if there is no room.
        """
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(README, self._readme())
            for name, text in self.files.items():
                archive.writestr(name, text)

    def _add_file(self, name: str, path: Path) -> None:
        try:
            text = path.read_text("utf-8", "replace")
        except OSError as error:
            self.lacks(f"{path}: {error.strerror}")
            return
        try:
            self.add(name, json.loads(text))
        except ValueError:
            self.lacks(f"{path} is not JSON; it is here as it is")
            self.add_text(name, text)

    def _last_lines(self, events: Sequence[Event]) -> str:
        """Show the last lines of an attempt; what is cut off is read for credentials, too."""
        attempt = [event for event in last_attempt([*events]) if event["event"] != "progress"]
        shown = tail([self.redactor.value(event) for event in attempt], LINES + BEFORE)
        lines = self.redactor.text(shown).splitlines()[-LINES:]
        return "\n".join(lines) + "\n"

    def _readme(self) -> str:
        lines = [
            f"A bundle of moco-transfer, made at {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
            "",
            "Credentials are blanked, and of the environment there are names only. Names of",
            "people, hosts and folders are in it: look through it before you give it away.",
            "",
            *(f"  {name}" for name in self.files),
            "",
            "What could not be had:" if self.lacking else "All that was asked for is here.",
            *(f"- {words}" for words in self.lacking),
        ]
        return "\n".join(lines) + "\n"


def _packages() -> dict[str, str]:
    """Return the versions of all that is installed, also where an installation is broken."""
    versions = {}
    for package in importlib.metadata.distributions():
        with suppress(KeyError, AttributeError, TypeError):
            versions[str(package.name)] = str(package.version)
    return versions


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _unwritable(error: OSError, path: Path) -> MocoError:
    return of_os_error(error, path) or NotWritableError(
        f"--bundle {path}: {error.strerror or error}; name another file"
    )


def _first_line(path: Path, start: str = "") -> str | None:
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    first = next((line for line in lines if line.startswith(start)), None)
    return first.removeprefix(start).strip('"') if first else None


def _free(folder: Path) -> int | None:
    """Return the room on the device of a folder, which need not exist."""
    for place in (folder, *folder.parents):
        with suppress(OSError):
            return shutil.disk_usage(place).free
    return None
