"""Does what the toy's config says."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from components.core.errors import DataError
from components.core.log import get_logger
from components.core.metrics import Metrics, write_metrics
from components.core.stage import Job
from components.toy import ToyConfig  # type: ignore[import-not-found]

log = get_logger(__name__)


def run(job: Job[ToyConfig]) -> None:
    """Wait, fail or measure."""
    config, state = job.config, Path(job.state)
    state.mkdir(parents=True, exist_ok=True)
    log.info("environment", threads=os.environ["OMP_NUM_THREADS"], gpus=_gpus(), pid=os.getpid())
    if config.orphan:
        sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
        others = [subprocess.Popen(sleep), subprocess.Popen(sleep, start_new_session=True)]
        log.info("left behind", pids=[other.pid for other in others])
    _fail(config, state / "attempts")
    job.facts["resumed_from"] = first = _count(state / "ticks")
    for tick in range(first, config.ticks):
        time.sleep(config.wait)
        _save(state / "ticks", tick + 1)
        log.info("progress", done=tick + 1, total=config.ticks, unit="ticks", loss=1 / (tick + 1))
    inputs = sorted(job.paths)
    (job.output("model") / "model.json").write_text(f'{{"value": {config.value}}}')
    write_metrics(
        job.output("metrics"), Metrics(values={"value": config.value}, details={"inputs": inputs})
    )


def _fail(config: ToyConfig, attempts: Path) -> None:
    before = _count(attempts)
    _save(attempts, before + 1)
    if before >= config.fails:
        return
    if config.how == "data":
        raise DataError("image 7.jpg is truncated; remove it")
    if config.how == "defect":
        raise RuntimeError("a defect of the toy")
    if config.how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(0)


def _count(path: Path) -> int:
    return int(path.read_text()) if path.exists() else 0


def _save(path: Path, count: int) -> None:
    """Write a count so that a signal leaves the old one or the new one."""
    temporary = path.with_suffix(".new")
    temporary.write_text(str(count))
    temporary.replace(path)


def _gpus() -> str:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "unset")
