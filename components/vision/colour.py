"""Colour jitter, grayscale and blur of one image on the CPU, in bytes, as Pillow computes them."""

from collections.abc import Callable, Iterable

import cv2
import numpy as np

from components.vision.decoding import Pixels
from components.vision.views import Operation

_LEVELS = np.arange(256, dtype=np.float32)


def adjust_colours(pixels: Pixels, colours: Iterable[tuple[Operation, float]]) -> Pixels:
    """Apply colour operations in their order to an RGB image, (H, W, 3)."""
    for operation, factor in colours:
        pixels = _OPERATIONS[operation](pixels, factor)
    return pixels


def blur(pixels: Pixels, sigma: float) -> Pixels:
    """Blur with a Gaussian of standard deviation `sigma`, pixels."""
    blurred: Pixels = cv2.GaussianBlur(pixels, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return blurred


def adjust_brightness(pixels: Pixels, factor: float) -> Pixels:
    """Blend with black; factor 1 changes nothing."""
    return _map_levels(pixels, factor * _LEVELS)


def adjust_contrast(pixels: Pixels, factor: float) -> Pixels:
    """Blend with the mean grey of the image; factor 1 changes nothing."""
    mean = int(cv2.mean(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))[0] + 0.5)
    return _map_levels(pixels, mean + factor * (_LEVELS - mean))


def adjust_saturation(pixels: Pixels, factor: float) -> Pixels:
    """Blend with the grey image; factor 1 changes nothing."""
    # Pillow cuts fractions off where OpenCV rounds, hence the half grey level.
    blended: Pixels = cv2.addWeighted(pixels, factor, to_grayscale(pixels), 1 - factor, -0.5)
    return blended


def adjust_hue(pixels: Pixels, factor: float) -> Pixels:
    """Turn the colour circle by `factor`, in -0.5..0.5 turns."""
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(int(factor * 255) % 256)
    turned: Pixels = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
    return turned


def to_grayscale(pixels: Pixels, _: float = 0.0) -> Pixels:
    """Replace each pixel by its luma, in three equal channels."""
    gray: Pixels = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return gray


def _map_levels(pixels: Pixels, levels: np.ndarray[tuple[int], np.dtype[np.float32]]) -> Pixels:
    mapped: Pixels = cv2.LUT(pixels, np.clip(levels, 0, 255).astype(np.uint8))
    return mapped


_OPERATIONS: dict[Operation, Callable[[Pixels, float], Pixels]] = {
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
    "grayscale": to_grayscale,
}
