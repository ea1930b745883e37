"""A small copy of every detection layout, for tests to read and to spoil."""

from pathlib import Path

from components.datasets.cityscapes import digits as cityscapes
from components.datasets.coco import digits as coco
from components.datasets.lvis import digits as lvis
from components.datasets.voc import digits as voc
from components.rendering.config import DigitsConfig, PicturesConfig

SMALL = DigitsConfig(pictures=PicturesConfig(train=60, val=20))
LAYOUTS = {
    "coco": coco.write,
    "lvis": lvis.write,
    "voc": voc.write,
    "cityscapes": cityscapes.write,
}


def write_world(folder: Path, config: DigitsConfig = SMALL) -> Path:
    """Write every detection layout into a folder of its name."""
    for name, write in LAYOUTS.items():
        (folder / name).mkdir(parents=True)
        write(config, folder / name)
    return folder
