"""What this machine has for steps to run on: cores, memory, GPUs."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.core.errors import UsageError
from components.core.stage import Resources
from pipelines.words import number

GIB = 1024**3
STEP_MEMORY = 2 * GIB  # what a step of the miniature needs with torch in it


@dataclass(frozen=True)
class Machine:
    """Cores, GPUs, and how many steps run side by side.

    Attributes:
        cores: Cores that this process may use.
        gpus: What CUDA_VISIBLE_DEVICES may name.
        jobs: Steps at a time.
        gpu_name: What the driver calls the GPUs, if all are of one kind.
    """

    cores: int
    gpus: tuple[str, ...]
    jobs: int
    gpu_name: str | None = None

    @property
    def threads(self) -> int:
        """Threads of each step; fixed, so that a run does not depend on what is beside it."""
        return max(1, self.cores // self.jobs)

    def words(self) -> str:
        """Say how many steps run side by side, and on what."""
        jobs = f"{self.jobs} at a time" if self.jobs > 1 else "one at a time"
        parts = [jobs, f"{number(self.threads, 'thread')} each"]
        return ", ".join(parts + [number(len(self.gpus), "GPU")] * bool(self.gpus))

    def gpus_for(self, wanted: Resources, scale: str) -> int:
        """Return how many GPUs a step gets: what it wants, what there is, one in miniature."""
        return min(1 if scale == "digits" else wanted.gpus, wanted.gpus, len(self.gpus))

    def environment(self, gpus: tuple[str, ...]) -> dict[str, str]:
        """Return the variables that keep a step within its share."""
        threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        return dict.fromkeys(threads, str(self.threads)) | {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}


def this_machine(jobs: int | None = None) -> Machine:
    """Look at this machine.

    By default a step for each core, as far as the memory goes; with GPUs a step
    for each GPU, and one beside for what needs none.

    Raises:
        UsageError: if no step at all is to run.
    """
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs {jobs}: at least one step at a time")
    cores, names = _cores(), _gpu_names()
    gpus = _visible_gpus(names)
    if jobs is None:
        jobs = len(gpus) + 1 if gpus else max(1, min(cores, _memory() // STEP_MEMORY))
    return Machine(cores, gpus, jobs, names[0] if gpus and len({*names}) == 1 else None)


def _cores() -> int:
    """Count the cores that the scheduler and the control group grant."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def _memory() -> int:
    """Return the main memory that may be used, bytes."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return memory


def _visible_gpus(names: Sequence[str]) -> tuple[str, ...]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name for name in visible.split(",") if name.strip() not in ("", "-1"))
    return tuple(map(str, range(len(names))))


def _gpu_names() -> list[str]:
    """Return what the driver calls each GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        listing = subprocess.run(  # noqa: S603
            [tool, "-L"], capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return re.findall(r"^GPU \d+: (.*?) \(UUID", listing.stdout, re.MULTILINE)
