"""How fast kinds of GPU train, where it was measured: what a plan is estimated by."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

IN_CODE_DIGEST = False  # plans are estimated by it, and nothing is trained by it

Work = Literal["pretrain", "linear", "finetune", "segmentation", "fpn", "c4"]
"""What is timed, all of it with ResNet-50: pre-training, linear classification and fine-tuning at
224 pixels, the FCN at crop 513, Mask R-CNN at 800."""


@dataclass(frozen=True)
class Rate:
    """A measured rate.

    Attributes:
        images: A GPU's share of the batch that it was measured with.
        per_second: Images/s of one GPU; pairs/s of pre-training.
    """

    images: int
    per_second: float


MEASURED: Mapping[str, Mapping[Work, tuple[Rate, ...]]] = {
    # 2026-11-27, bf16, torch 2.11, in the training loop; of pre-training from JPEG files.
    "H200": {
        "pretrain": (Rate(32, 3064), Rate(256, 4596)),
        "linear": (Rate(256, 23165),),
        "finetune": (Rate(256, 6048),),
        "segmentation": (Rate(16, 495),),
        "fpn": (Rate(16, 64.3),),
        "c4": (Rate(16, 33.0),),
    },
}
"""By a word in what the driver calls the card; see tests/benchmarks/README.md."""


@dataclass(frozen=True)
class Gpus:
    """GPUs that a training gets.

    Attributes:
        name: What the driver calls them; None if nobody knows.
        count: How many.
    """

    name: str | None = None
    count: int = 1

    @property
    def known(self) -> str | None:
        """The kind, if rates of it were measured."""
        words = (self.name or "").split()
        return next((kind for kind in MEASURED if kind in words), None)

    def per_second(self, work: Work, batch_size: int) -> float | None:
        """Return the images/s of one of them, by the measured share nearest below; None if unknown.

        What several GPUs tell each other is not in it.

        Args:
            work: Kind of training.
            batch_size: Of all of them together.
        """
        rates = MEASURED[self.known].get(work, ()) if self.known else ()
        share = batch_size / self.count
        # A smaller share than any measured has a lower rate, which nobody knows.
        fitting = [rate for rate in rates if rate.images <= share] or list(rates[:1])
        return fitting[-1].per_second if fitting else None


V100S = Gpus("V100")
"""The paper's, whose rates each config states."""
