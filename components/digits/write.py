"""The work of the stage `digits`: fill every output port with its layout."""

from components.core.dataset import find_dataset
from components.core.log import get_logger
from components.core.stage import Job
from components.rendering.config import DigitsConfig

log = get_logger(__name__)


def run(job: Job[DigitsConfig]) -> None:
    """Write the miniature of every data set into the output port of its name."""
    for port, name in job.config.layouts().items():
        find_dataset(name).load_writer()(job.config, job.output(port))
        log.info("layout written", layout=name)
