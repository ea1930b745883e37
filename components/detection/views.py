"""How an image and its instances are shown: resized, perhaps mirrored, all of it together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from components.datasets.instances import Instances, Mirroring, SurfacePoints
from components.detection.config import DetectionConfig
from components.evaluation.body import COARSE_PARTS, FINE_PARTS, SIDE
from components.vision import rle
from components.vision.cropping import resize_image
from components.vision.decoding import Pixels
from components.vision.masks import Mask, PolygonMask
from components.vision.rle import Pixels as MaskPixels

Targets = dict[str, npt.NDArray[Any]]
"""Columns of an image's instances, as in `components.detection.interface`."""

_LEAST = 1e-5  # pixels of a box's side, as in detectron2


@dataclass(frozen=True)
class DetectionView:
    """How an image is shown.

    Attributes:
        height: After resizing, pixels.
        width: After resizing, pixels.
        flip: Whether it is mirrored.
    """

    height: int
    width: int
    flip: bool = False


@dataclass(frozen=True)
class Wanted:
    """What the model learns beside boxes and classes.

    Attributes:
        masks: Whether it learns masks.
        pairs: Keypoints that change places in a mirror; None if it learns none.
        surfaces: Whether it learns DensePose.
        mirroring: Where DensePose's points go in a mirror; None if nothing is mirrored.
    """

    masks: bool = False
    pairs: tuple[tuple[int, int], ...] | None = None
    surfaces: bool = False
    mirroring: Mirroring | None = None


def fit(height: int, width: int, shorter: int, longer: int) -> tuple[int, int]:
    """Return the size of an image whose shorter side is resized, the longer one limited.

    Args:
        height: Of the image.
        width: Of the image.
        shorter: Wanted of the shorter side, pixels.
        longer: Of the longer side at most, pixels.
    """
    scale = min(shorter / min(height, width), longer / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def draw_view(
    config: DetectionConfig, height: int, width: int, generator: np.random.Generator
) -> DetectionView:
    """Choose how a training image of height × width pixels is shown."""
    side, flip = generator.random(2).tolist()
    shorter = config.shorter_sides[int(side * len(config.shorter_sides))]
    return DetectionView(*fit(height, width, shorter, config.longer_side), flip=flip < config.flip)


def show_image(pixels: Pixels, view: DetectionView) -> Pixels:
    """Return the image as it is shown, (height, width, 3)."""
    shown = resize_image(pixels, view.height, view.width)
    return cv2.flip(shown, 1) if view.flip else shown


def show_instances(instances: Instances, view: DetectionView, wanted: Wanted) -> Targets:
    """Return the instances as they are shown; crowds and what has no pixel are left out."""
    scale = np.array([view.width / instances.width, view.height / instances.height], np.float32)
    boxes = instances.boxes * np.tile(scale, 2)
    if view.flip:
        boxes[:, [0, 2]] = view.width - boxes[:, [2, 0]]
    boxes = np.clip(boxes, 0, np.tile(np.array([view.width, view.height], np.float32), 2))
    kept = ~instances.crowd & (boxes[:, 2:] - boxes[:, :2] > _LEAST).all(1)
    targets: Targets = {}
    if wanted.masks:
        masks = show_masks([instances.masks[place] for place in np.flatnonzero(kept)], view)
        seen = np.array([mask.any() for mask in masks], np.bool_)
        kept[kept] = seen
        targets["masks"] = masks if seen.all() else masks[seen]
    targets |= {"boxes": boxes[kept], "labels": instances.labels[kept].astype(np.int64)}
    if wanted.pairs is not None:
        assert instances.keypoints is not None
        targets["keypoints"] = _show_keypoints(
            instances.keypoints[kept] * np.append(scale, np.float32(1)), view, wanted.pairs
        )
    if wanted.surfaces:
        chosen = [instances.surfaces[place] for place in np.flatnonzero(kept)]
        targets |= _show_surfaces(chosen, view, wanted.mirroring)
    return targets


def show_masks(masks: Sequence[Mask], view: DetectionView) -> MaskPixels:
    """Return masks as they are shown, (N, height, width)."""
    # Drawn where they stay: a copy of all pixels takes as long as drawing the few of an instance.
    shown = np.zeros((len(masks), view.height, view.width), np.bool_)
    for mask, canvas in zip(masks, shown[..., ::-1] if view.flip else shown, strict=True):
        _draw_mask(mask, canvas)
    return shown


def _draw_mask(mask: Mask, canvas: MaskPixels) -> None:
    """Draw a mask over all of an empty canvas.

    A polygon is filled at the new size, and only where it is: that is sharper than a
    resized mask, and takes a fraction of the time.
    """
    height, width = canvas.shape
    if not isinstance(mask, PolygonMask):
        decoded = mask.decode().astype(np.uint8)
        canvas[:] = cv2.resize(decoded, (width, height), interpolation=cv2.INTER_NEAREST_EXACT) > 0
        return
    scale = np.array([width / mask.width, height / mask.height])
    for polygon in mask.polygons:
        corners = polygon * scale
        left, top = np.maximum(np.floor(corners.min(0)).astype(int) - 1, 0)
        right, bottom = np.ceil(corners.max(0)).astype(int) + 1
        part = canvas[top:bottom, left:right]
        if part.size:
            part |= rle.fill([corners - (left, top)], *part.shape)


def mirror_surface(points: SurfacePoints, mirroring: Mirroring) -> tuple[npt.NDArray[Any], ...]:
    """Mirror DensePose of an instance.

    Returns:
        Coarse parts, (256, 256); x, y, part, u and v of the points, each (P,).
    """
    parts = mirrored_numbers(COARSE_PARTS, first_pair=2)[points.parts()[:, ::-1]]
    old = points.part - 1
    row, column = ((255 * coordinate).astype(np.int64) for coordinate in (points.v, points.u))
    u, v = mirroring.u[old, row, column], mirroring.v[old, row, column]
    part = mirrored_numbers(FINE_PARTS, first_pair=3)[points.part]
    return parts, SIDE - points.x, points.y, part, u, v


def mirrored_numbers(count: int, *, first_pair: int) -> npt.NDArray[np.int64]:
    """Return the number that each body part, from 0 (none) to `count`, has in a mirror.

    From the first pair on, neighbours are the left and the right of the same.
    """
    numbers = np.arange(count + 1)
    paired = numbers[first_pair : first_pair + (count + 1 - first_pair) // 2 * 2]
    numbers[paired] = paired.reshape(-1, 2)[:, ::-1].ravel()
    return numbers


def _show_keypoints(
    keypoints: npt.NDArray[np.float32], view: DetectionView, pairs: tuple[tuple[int, int], ...]
) -> npt.NDArray[np.float32]:
    """Mirror keypoints; those that are unlabelled or outside of the image are zeros."""
    if view.flip:
        keypoints[..., 0] = view.width - keypoints[..., 0]
        order = np.arange(keypoints.shape[1])
        for first, second in pairs:
            order[[first, second]] = second, first
        keypoints = keypoints[:, order]
    place = keypoints[..., :2]
    inside = (place >= 0).all(-1) & (place <= (view.width, view.height)).all(-1)
    keypoints[~inside | (keypoints[..., 2] == 0)] = 0
    return keypoints.astype(np.float32)


def _show_surfaces(
    surfaces: list[SurfacePoints | None], view: DetectionView, mirroring: Mirroring | None
) -> Targets:
    """Write DensePose as columns; coordinates are the box's, so only a mirror changes them."""
    parts = np.zeros((len(surfaces), SIDE, SIDE), np.uint8)
    rows = [np.zeros((0, 5), np.float32)]
    owners = [np.zeros(0, np.int64)]
    for place, surface in enumerate(surfaces):
        if surface is None:
            continue
        if view.flip:
            assert mirroring is not None, "nothing is mirrored without the geometry"
            parts[place], *columns = mirror_surface(surface, mirroring)
        else:
            parts[place] = surface.parts()
            columns = [surface.x, surface.y, surface.part, surface.u, surface.v]
        rows.append(np.stack(columns, axis=1).astype(np.float32))
        owners.append(np.full(len(surface.x), place, np.int64))
    return {
        "surfaces": np.array([surface is not None for surface in surfaces], np.bool_),
        "parts": parts,
        "points": np.concatenate(rows),
        "point_owners": np.concatenate(owners),
    }
