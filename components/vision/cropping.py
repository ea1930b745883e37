"""Crops resized to a view with the antialiasing of the published results, on the CPU."""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from components.vision.decoding import Pixels
from components.vision.views import Crop


def crop_and_resize(pixels: Pixels, crop: Crop, size: int, *, flip: bool = False) -> Pixels:
    """Resize a crop to size × size pixels, mirrored if asked.

    Bilinear with antialiasing. torch's kernel for bytes equals Pillow's result within
    one grey level and takes a quarter of its time; OpenCV's area mode is slower and
    sharper, its linear mode does not antialias.
    """
    top, left, height, width = crop
    resized = resize_image(pixels[top : top + height, left : left + width], size, size)
    return cv2.flip(resized, 1) if flip else resized


def centre_crop(pixels: Pixels, resize: int, size: int) -> Pixels:
    """Resize the shorter side to `resize` pixels and cut size × size pixels from the centre."""
    height, width = pixels.shape[:2]
    if height <= width:
        height, width = resize, int(resize * width / height)
    else:
        height, width = int(resize * height / width), resize
    resized = resize_image(pixels, height, width)
    top, left = round((height - size) / 2), round((width - size) / 2)
    return resized[top : top + size, left : left + size]


def resize_image(pixels: Pixels, height: int, width: int) -> Pixels:
    """Resize an image, bilinear with antialiasing."""
    if pixels.shape[:2] == (height, width):
        return pixels
    # The fast kernel wants a contiguous image, channels last, and the batch dimension
    # added before channels move: only then are all strides those of that memory format.
    image: Tensor = torch.from_numpy(np.ascontiguousarray(pixels))[None].permute(0, 3, 1, 2)
    resized = F.interpolate(image, size=(height, width), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()
