"""The work of the stage `digits`: fill every output port with its layout."""

from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from components.core.dataset import find_dataset
from components.core.log import get_logger
from components.core.stage import Job
from components.rendering.config import DigitsConfig

AT_ONCE = 2  # layouts: nothing else can run before them, and a pod of the miniature is small

log = get_logger(__name__)


def run(job: Job[DigitsConfig]) -> None:
    """Write the miniature of every data set into the output port of its name."""
    layouts = job.config.layouts().items()
    for _, name in layouts:
        find_dataset(name).load_writer()  # imported once, where processes are forked
    with ProcessPoolExecutor(AT_ONCE) as pool:
        writing = {
            pool.submit(write, name, job.config, job.output(port)): name for port, name in layouts
        }
        for written in as_completed(writing):
            written.result()
            log.info("layout written", layout=writing[written])


def write(name: str, config: DigitsConfig, folder: Path) -> None:
    """Write the miniature of a data set; it depends on nothing but its config."""
    find_dataset(name).load_writer()(config, folder)
