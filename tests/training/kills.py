"""Kill a training over and over, at any moment, until one attempt comes to its end.

`python -m tests.training.kills FOLDER KILLS SEED`. Attempts are forks of one process that has
trained once already, and so has imported everything: dozens of kills take seconds.
"""

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

from components.core import log
from tests.training.learner import CONFIG, work

STEPS = 420
PACED = 40  # steps of which the pace is taken


def newest(folder: Path) -> int:
    return max(
        (int(p.parent.name) for p in folder.glob("state/checkpoints/*/manifest.json")), default=0
    )


def attempt(folder: Path, seconds: float | None) -> bool:
    """Train in a fork, killed after some seconds beyond its first own checkpoint."""
    before = newest(folder)
    child = os.fork()
    if child == 0:
        work(CONFIG, str(folder), STEPS)
        os._exit(0)
    while newest(folder) == before and os.waitpid(child, os.WNOHANG) == (0, 0):
        time.sleep(0.001)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    try:
        _, status = os.waitpid(child, 0)
    except ChildProcessError:
        return True
    return status == 0


def main() -> None:
    folder, kills, chance = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    log.configure(level="error")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        work(CONFIG, f"{scratch}/first", 2)
        started = time.monotonic()
        work(CONFIG, f"{scratch}/paced", PACED)
        step = (time.monotonic() - started) / PACED  # seconds, on this machine
    killed = 0
    # An attempt is to take about three steps, so that most of them are left for the others.
    while killed < kills and not attempt(folder, chance.uniform(0, 4 * step)):
        killed += 1
    if killed == kills:
        attempt(folder, None)
    print(killed)


if __name__ == "__main__":
    main()
