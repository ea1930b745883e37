"""Resizing and mirroring keep every instance where its pixels are."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from components.datasets.instances import Instances, Mirroring, SurfacePoints, flip_pairs
from components.detection.views import (
    DetectionView,
    Wanted,
    fit,
    mirror_surface,
    show_image,
    show_instances,
    show_masks,
)
from components.rendering.surface import mirroring as digits_mirroring
from tests.datasets.readers import read_coco, read_densepose, read_keypoints

VIEWS = [
    DetectionView(64, 64),
    DetectionView(100, 130, flip=True),
    DetectionView(48, 80),
    DetectionView(96, 72, flip=True),
]
MIRRORING = Mirroring(*(np.asarray(one, np.float32) for one in digits_mirroring()))


def painted(mask: np.ndarray, view: DetectionView) -> np.ndarray:
    """What the image pipeline makes of an image that shows the mask in white."""
    image = np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=2)
    return show_image(image, view)[..., 0] > 127


def several(images: list[Instances]) -> list[tuple[Instances, DetectionView]]:
    return [(image, VIEWS[place % len(VIEWS)]) for place, image in enumerate(images)]


def test_masks_and_boxes_are_where_the_painted_pixels_are(world: Path) -> None:
    images = read_coco(world / "coco", "train2017")
    overlaps, distances = [], []
    for image, view in several([one for one in images if len(one)]):
        shown = show_instances(image, view, Wanted(masks=True))
        kept = np.flatnonzero(~image.crowd)
        assert len(shown["labels"]) == len(kept)
        for place, mask, box in zip(kept, shown["masks"], shown["boxes"], strict=True):
            seen = painted(image.masks[place].decode(), view)
            overlaps.append((mask & seen).sum() / (mask | seen).sum())
            y, x = np.nonzero(seen)
            distances.append(np.abs(box - (x.min(), y.min(), x.max() + 1, y.max() + 1)).max())
    assert np.mean(overlaps) > 0.93
    assert np.min(overlaps) > 0.75
    assert np.max(distances) < 2.5


def test_a_mask_at_the_original_size_is_the_official_one(world: Path) -> None:
    for image in read_coco(world / "coco", "train2017"):
        for mask in image.masks:
            expected = mask.decode()
            height, width = expected.shape
            same = DetectionView(height, width)
            (shown,) = show_masks([mask], same)
            np.testing.assert_array_equal(shown, expected)
            (flipped,) = show_masks([mask], DetectionView(height, width, flip=True))
            np.testing.assert_array_equal(flipped, expected[:, ::-1])


def test_crowds_and_what_has_no_pixel_are_left_out(world: Path) -> None:
    images = read_coco(world / "coco", "train2017")
    crowded = next(image for image in images if image.crowd.any())
    shown = show_instances(crowded, DetectionView(64, 64), Wanted(masks=True))
    assert len(shown["labels"]) == (~crowded.crowd).sum()
    image = next(image for image in images if len(image) > 1)
    image.boxes[0] = (image.width + 1, 0, image.width + 5, 5)  # outside: clipped to nothing
    shown = show_instances(image, DetectionView(64, 64), Wanted())
    np.testing.assert_array_equal(shown["labels"], image.labels[1:])


def test_boxes_are_clipped_to_the_image(world: Path) -> None:
    image = next(image for image in read_coco(world / "coco", "train2017") if len(image))
    image.boxes[0] = (-3, 2, image.width + 9, image.height + 4)
    (box, *_) = show_instances(image, DetectionView(image.height, image.width), Wanted())["boxes"]
    np.testing.assert_array_equal(box, (0, 2, image.width, image.height))


def test_keypoints_stay_on_their_pixels_and_sides_change_places(world: Path) -> None:
    images = read_keypoints(world / "coco", "train2017")
    names = images.categories.keypoints
    pairs = flip_pairs(names)
    for image, view in several([one for one in images if len(one)]):
        kept = ~image.crowd
        shown = show_instances(image, view, Wanted(pairs=pairs))["keypoints"]
        assert image.keypoints is not None
        for before, after in zip(image.keypoints[kept], shown, strict=True):
            for place, name in enumerate(names):
                swap = {"left": "right", "right": "left"}.get(name[: name.find("_")])
                other = f"{swap}{name[name.find('_') :]}" if view.flip and swap else name
                x, y, visible = before[place]
                found = after[names.index(other)]
                assert found[2] == visible
                if visible:
                    x *= view.width / image.width
                    expected = (view.width - x if view.flip else x, y * view.height / image.height)
                    np.testing.assert_allclose(found[:2], expected, atol=1e-3)
                else:
                    assert not found.any()


def surface_points(world: Path) -> list[SurfacePoints]:
    images = read_densepose(world / "coco", "train2014")
    return [one for image in images for one in image.surfaces if one is not None]


def test_mirroring_a_surface_twice_gives_it_back(world: Path) -> None:
    for one in surface_points(world)[:20]:
        parts, x, y, part, u, v = mirror_surface(one, MIRRORING)
        once = SurfacePoints(x, y, part, u, v, masks_of(parts))
        again, x, y, part, u, v = mirror_surface(once, MIRRORING)
        np.testing.assert_array_equal(again, one.parts())
        np.testing.assert_array_equal(part, one.part)
        for found, expected in ((x, one.x), (y, one.y), (u, one.u), (v, one.v)):
            np.testing.assert_allclose(found, expected, atol=2.1 / 255 if found is u else 1.1 / 255)


def test_a_mirrored_surface_has_the_parts_of_the_other_side(world: Path) -> None:
    one = max(surface_points(world), key=lambda one: len(np.unique(one.part)))
    parts, x, _, part, _, _ = mirror_surface(one, MIRRORING)
    # Odd parts from 3 on are at the left of the sheet, even ones at the right.
    for before, after in zip(one.part, part, strict=True):
        assert after == (before if before < 3 else before + 1 if before % 2 else before - 1)
    np.testing.assert_allclose(x, 256 - one.x)
    old = one.parts()
    for number in range(2, 14, 2):  # coarse parts come in pairs from 2 on
        np.testing.assert_array_equal(parts == number, (old == number + 1)[:, ::-1])
        np.testing.assert_array_equal(parts == number + 1, (old == number)[:, ::-1])


def masks_of(parts: np.ndarray) -> tuple[str, ...]:
    from components.vision import rle

    return tuple(
        rle.compress(rle.encode(parts == number)) if (parts == number).any() else ""
        for number in range(1, 15)
    )


def test_points_of_a_surface_lie_on_their_instance_after_any_view(world: Path) -> None:
    images = read_densepose(world / "coco", "train2014")
    inside = []
    for image, view in several([one for one in images if any(one.surfaces)]):
        wanted = Wanted(masks=True, surfaces=True, mirroring=MIRRORING)
        shown = show_instances(image, view, wanted)
        for owner, (x, y, *_) in zip(shown["point_owners"], shown["points"], strict=True):
            left, top, right, bottom = shown["boxes"][owner]
            column = int(np.clip(left + x / 256 * (right - left), 0, view.width - 1))
            row = int(np.clip(top + y / 256 * (bottom - top), 0, view.height - 1))
            near = shown["masks"][owner][max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            inside.append(near.any())
    assert len(inside) > 500
    assert np.mean(inside) > 0.99


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (800, 1067)), ((640, 480), (1067, 800)), ((300, 1000), (400, 1333))],
)
def test_the_shorter_side_is_resized_unless_the_longer_one_would_be_too_long(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert fit(*size, 800, 1333) == expected


def test_an_image_and_its_mirror_image_are_shown_alike() -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    shown = show_image(image, DetectionView(80, 120, flip=True))
    expected = show_image(cv2.flip(image, 1), DetectionView(80, 120))
    assert np.abs(shown.astype(int) - expected.astype(int)).max() <= 1
