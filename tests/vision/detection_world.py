"""A small copy of every detection layout, for tests to read and to spoil."""

from pathlib import Path

from components.digits import DigitsConfig, PicturesConfig
from components.digits.layouts import cityscapes, coco, lvis, voc

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
