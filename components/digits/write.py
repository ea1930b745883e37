"""The work of the stage `digits`: fill every output port with its layout."""

from components.core.log import get_logger
from components.core.main import Job
from components.digits import DigitsConfig
from components.digits.layouts import cityscapes, coco, imagenet, inaturalist, lvis, voc

log = get_logger(__name__)

LAYOUTS = {
    "imagenet": imagenet.write,
    "inaturalist": inaturalist.write,
    "coco": coco.write,
    "lvis": lvis.write,
    "voc": voc.write,
    "cityscapes": cityscapes.write,
}


def run(job: Job[DigitsConfig]) -> None:
    """Write each layout into the output port of its name."""
    for name, write in LAYOUTS.items():
        write(job.config, job.output(name))
        log.info("layout written", layout=name)
