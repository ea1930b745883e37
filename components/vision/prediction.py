"""What a detector found: between models, what measures it, and what draws it."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Prediction:
    """What a detector found in an image, D instances by falling score, on the CPU.

    All is in pixels of the original image.

    Attributes:
        boxes: Left, top, right, bottom, (D, 4), float32.
        scores: (D,), float32.
        labels: Class indices from 0, (D,), int64.
        masks: (D, height, width), bool; None without a mask head.
        keypoints: x, y and score, (D, K, 3), float32; None without a keypoint head.
        surfaces: For each instance part (0 for none, to 24), u and v (both times 255) of each
            pixel of its box, (3, h, w), uint8, h and w the whole pixels of the box's sides, at
            least 1; None without a DensePose head.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None
    keypoints: Tensor | None = None
    surfaces: tuple[Tensor, ...] | None = None

    def __len__(self) -> int:
        return len(self.scores)
