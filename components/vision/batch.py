"""A batch of views on its way from the loading processes to the training device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from components.vision.views import View


@dataclass(frozen=True)
class CorruptImage:
    """An image that could not be read.

    Attributes:
        index: Its position in the image set.
        file: Its path.
        reason: What is wrong with it.
    """

    index: int
    file: str
    reason: str


@dataclass(frozen=True)
class Colours:
    """The colour operations of N views as numbers, for all of them at once.

    Attributes:
        mix: For each view and step, (N, steps, 4): factors of the pixel, of its grey
            value and of the image's mean grey, and a constant, in grey levels. Brightness,
            contrast, saturation and grayscale are all of this form.
        hue: Turns of the colour circle, (N, steps); 0 for none. Stays on the CPU.
        blur: Standard deviation of the blur, pixels, (N,); 0 for none. Stays on the CPU.
    """

    mix: Tensor
    hue: Tensor
    blur: Tensor


@dataclass(frozen=True)
class Batch:
    """N samples.

    Attributes:
        views: One tensor of bytes for each view, RGB, (N, 3, H, W) in channels-last memory.
        colours: For each view the colour operations that are left to the device; empty if
            none are.
        labels: Class indices, (N,); -1 where there are no classes.
        indices: Positions in the image set, (N,).
        corrupt: Images that could not be read while this batch was made.
    """

    views: tuple[Tensor, ...]
    colours: tuple[Colours, ...]
    labels: Tensor
    indices: Tensor
    corrupt: tuple[CorruptImage, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Self:
        """Copy to a device, without waiting if the batch is pinned."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """Copy into page-locked memory; torch's loader calls it."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        return replace(
            self,
            views=tuple(change(view) for view in self.views),
            colours=tuple(replace(c, mix=change(c.mix)) for c in self.colours),
            labels=change(self.labels),
            indices=change(self.indices),
        )


def encode_colours(views: Sequence[View]) -> Colours:
    """Write the colour operations and blurs of N views as numbers."""
    steps = max((len(view.colours) for view in views), default=0)
    mix = np.zeros((len(views), steps, 4), np.float32)
    mix[..., 0] = 1
    hue = np.zeros((len(views), steps), np.float32)
    for row, view in enumerate(views):
        for step, (operation, factor) in enumerate(view.colours):
            if operation == "hue":
                hue[row, step] = factor
            else:
                mix[row, step] = _MIXES[operation](factor)
    return Colours(
        mix=torch.from_numpy(mix),
        hue=torch.from_numpy(hue),
        blur=torch.tensor([view.blur for view in views]),
    )


# The half grey level stands for the fractions that Pillow cuts off after each operation.
_MIXES: dict[str, Callable[[float], tuple[float, float, float, float]]] = {
    "brightness": lambda factor: (factor, 0.0, 0.0, -0.5),
    "contrast": lambda factor: (factor, 0.0, 1 - factor, -0.5),
    "saturation": lambda factor: (factor, 1 - factor, 0.0, -0.5),
    "grayscale": lambda _: (0.0, 1.0, 0.0, 0.0),
}
