"""Annotation files in COCO's form and train2017's proportions, for readers to read."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

HEIGHT, WIDTH = 480, 640
CATEGORIES = [one for one in range(1, 91) if one % 9]  # 80 of them, with gaps as COCO's have
CROWDS = 86  # objects for each one that is a crowd
_CHUNK = 10_000  # objects that are drawn at once

Values = npt.NDArray[np.float64]


def write_instances(path: Path, names: Sequence[str], objects: int) -> None:
    """Write objects at random places of images of 640×480 pixels.

    An object has 1.3 polygons with 18 corners on average, so that the bytes of an object are
    as many as train2017's, 500; one in 86 is a crowd, as uncompressed run lengths.

    Args:
        path: The file.
        names: Files of the images, whose ids are counted from 1.
        objects: How many there are in all.
    """
    random = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        file.write('{"info":{},"licenses":[],"images":[')
        file.write(",".join(_image(number, name) for number, name in enumerate(names, 1)))
        file.write('],"annotations":[')
        for first in range(0, objects, _CHUNK):
            file.write("," if first else "")
            count = min(_CHUNK, objects - first)
            file.write(",".join(_objects(random, first + 1, count, len(names))))
        categories = [{"id": one, "name": f"class {one}"} for one in CATEGORIES]
        file.write(f'],"categories":{json.dumps(categories)}}}')


def _image(number: int, name: str) -> str:
    record = {
        "license": 3,
        "file_name": name,
        "coco_url": f"http://images.example/train2017/{name}",
        "height": HEIGHT,
        "width": WIDTH,
        "date_captured": "2013-11-14 11:18:45",
        "flickr_url": f"http://photographs.example/8186/8119368305_4e622c{number:04x}_z.jpg",
        "id": number,
    }
    return json.dumps(record)


def _objects(random: np.random.Generator, first: int, count: int, images: int) -> Iterator[str]:
    """Draw objects, and write each as JSON; all numbers of a chunk are drawn together."""
    parts = 1 + random.poisson(0.3, count)
    corners = np.clip(random.lognormal(np.log(15), 0.6, parts.sum()), 4, 200).astype(np.int64)
    points = _outlines(random, np.repeat(np.arange(count), parts), corners, count)
    part_ends = np.cumsum(corners)
    object_starts = np.concatenate([[0], part_ends[np.cumsum(parts) - 1][:-1]])
    low, high = (one.reduceat(points, object_starts) for one in (np.minimum, np.maximum))
    boxes = np.concatenate([low, np.maximum(high - low, 1)], axis=1).round(2)
    areas = (boxes[:, 2] * boxes[:, 3] * 0.7).round(4).tolist()
    texts = [str(one) for one in points.ravel().tolist()]
    starts = (2 * (part_ends - corners)).tolist()
    ends = (2 * part_ends).tolist()
    owners = random.integers(1, images + 1, count).tolist()
    kinds = random.choice(CATEGORIES, count).tolist()
    part = 0
    for place, (box, polygons) in enumerate(zip(boxes.tolist(), parts.tolist(), strict=True)):
        own = range(part, part + polygons)
        part += polygons
        crowd = (first + place) % CROWDS == 0
        shapes = ",".join(f"[{','.join(texts[starts[one] : ends[one]])}]" for one in own)
        shown = _runs(random) if crowd else f"[{shapes}]"
        yield (
            f'{{"segmentation": {shown},"area": {areas[place]},"iscrowd": {int(crowd)},'
            f'"image_id": {owners[place]},"bbox": {json.dumps(box)},'
            f'"category_id": {kinds[place]},"id": {first + place}}}'
        )


def _outlines(
    random: np.random.Generator,
    owners: npt.NDArray[np.int64],
    corners: npt.NDArray[np.int64],
    count: int,
) -> Values:
    """Return the corners of all polygons, (P, 2): ellipses with an uneven edge."""
    part = np.repeat(np.arange(len(corners)), corners)
    number = np.arange(len(part)) - np.repeat(np.cumsum(corners) - corners, corners)
    angle = 2 * np.pi * number / corners[part]
    radii = np.exp(random.uniform(np.log(6), np.log(120), (count, 2)))
    centres = random.uniform(0, [WIDTH, HEIGHT], (count, 2))[owners]
    centres += random.normal(size=centres.shape) * radii[owners] / 2
    centres = np.clip(centres, 0, [WIDTH, HEIGHT])
    directions = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    edge = 1 + 0.15 * random.normal(size=(len(part), 1))
    points = centres[part] + radii[owners][part] * directions * edge
    clipped: Values = np.clip(points, 0, [WIDTH, HEIGHT])
    return clipped.round(2)


def _runs(random: np.random.Generator) -> str:
    cuts = np.sort(random.integers(0, HEIGHT * WIDTH, 400))
    counts = np.diff(cuts, prepend=0, append=HEIGHT * WIDTH)
    return json.dumps({"counts": counts.tolist(), "size": [HEIGHT, WIDTH]})
