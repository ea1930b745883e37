"""Stage: pre-training by momentum contrast, or by the two mechanisms it is compared to."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from components.core.config import Config
from components.core.dataset import of_kind
from components.core.errors import ConfigError
from components.core.gpus import V100S, Gpus
from components.core.stage import Port, Resources, Stage
from components.training.config import Schedule, TrainingConfig
from components.vision.architectures import Architecture, relative_cost
from components.vision.config import (
    AugmentationConfig,
    EvaluationConfig,
    LoaderConfig,
    moco_v1,
    moco_v2,
)
from components.vision.formats import count_training_images

DatasetName = Annotated[str, AfterValidator(of_kind("images", "classification"))]
"""Of images, with classes or without: `moco data list` names them."""
IMAGENET_IMAGES = 1_281_167  # for training
MINIATURE_STEPS = 786
"""Of a miniature whose length is stated in steps: six epochs of the digits."""
MONITORED = "imagenet"
"""The layout of the images that the kNN monitor votes on."""


class KnnConfig(Config):
    """The kNN monitor (Wu et al. 2018), the solid curves of Figure A.1."""

    neighbours: PositiveInt = 200
    """How many vote."""
    temperature: PositiveFloat = 0.07
    """A neighbour's vote weighs exp(similarity / temperature)."""
    every: PositiveInt = 1
    """Epochs between measurements."""
    every_iterations: PositiveInt | None = None
    """Steps between measurements, in place of epochs, which may be long."""
    bank_images: PositiveInt | None = None
    """Training images in the bank, evenly spread; null for all, as the paper does. All of
    ImageNet cost about a fifth of an epoch."""


class PretrainConfig(TrainingConfig):
    """Contrastive pre-training; the defaults are the paper's for IN-1M (Sec. 3.3)."""

    architecture: Architecture = "resnet50"
    """Of the encoders."""
    mechanism: Literal["moco", "end_to_end", "memory_bank"] = "moco"
    """Where the negatives come from (Sec. 3.2 and Figure 2): a queue of keys, the keys of the
    same batch, or a bank with a feature of every sample."""
    head: Literal["linear", "mlp"] = "linear"
    """From the pooled features to the embedding: linear (v1), or two layers (v2)."""
    dim: PositiveInt = 128
    """Numbers in an embedding."""
    negatives: PositiveInt = 65536
    """K: length of the queue, or samples drawn from the bank; end-to-end has the other keys of
    the batch instead."""
    key_momentum: float = Field(default=0.999, ge=0, le=1)
    """m of Eq. 2: the share that the key encoder keeps of itself at each step."""
    bank_momentum: float = Field(default=0.5, ge=0, le=1)
    """The share that an entry of the memory bank keeps of itself (Wu et al. 2018)."""
    temperature: PositiveFloat = 0.07
    """τ of Eq. 1."""
    shuffle: Literal["shuffled", "plain", "none"] = "shuffled"
    """Batch norm of the keys (Sec. 3.3, Appendix A.9): statistics of sub-batches dealt at random;
    of the very sub-batches that hold the positive queries; or of a process's whole batch."""
    sub_batch: PositiveInt = 32
    """Images that share batch statistics: a GPU's share in the paper. A process with more is
    split into virtual sub-batches."""
    epochs: PositiveInt = 200
    """Passes over the training images."""
    iterations: PositiveInt | None = None
    """Steps of training, in place of epochs: what IG-1B's length is stated in (Sec. 3.3)."""
    schedule: Schedule = Schedule(drops=(0.6, 0.8))
    """The learning rate over training; the paper drops it at epochs 120 and 160."""
    data: DatasetName = "imagenet"
    """Layout of the data: ImageNet folders, or any tree of images (as IG-1B was used)."""
    augmentation: AugmentationConfig = moco_v1()
    """Two random views of each image."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """The one view that the kNN monitor sees."""
    loader: LoaderConfig = LoaderConfig()
    """How images reach the training process."""
    knn: KnnConfig | None = KnnConfig()
    """The kNN monitor; null for none."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.mechanism == "moco" and self.negatives % self.batch_size:
            below = self.negatives // self.batch_size * self.batch_size
            raise ValueError(
                f"batch_size {self.batch_size} must divide negatives {self.negatives}, because a "
                "batch of keys replaces a batch of the queue; the nearest that fit are "
                f"{below or self.batch_size} and {below + self.batch_size}"
            )
        if self.shuffle != "none" and self.batch_size % self.sub_batch:
            raise ValueError(f"sub_batch {self.sub_batch} must divide batch_size {self.batch_size}")
        return self

    def miniature(self) -> Self:
        """Derive the experiment for the digits world: a small ResNet on 48-pixel scenes.

        Views keep at least half of a scene and are not mirrored, because a digit is
        known by its whole shape and its direction. Few steps want small batches, a key
        encoder that follows faster, and a constant rate: while it falls, the keys in the
        queue are those of a faster encoder, which are easy negatives, and the loss rises.
        """
        views = {"crop": 40, "crop_area": (0.5, 1.0), "flip_probability": 0.0}
        schedule: dict[str, object] = {"kind": "step"}
        if self.iterations is not None and self.schedule.every is not None:
            drops = self.iterations // self.schedule.every
            every = max(1, MINIATURE_STEPS // drops)
            schedule = {"kind": "every", "every": every, "gamma": self.schedule.gamma}
        return self.derive(
            architecture="resnet_digits",
            dim=64,
            negatives=1024,
            batch_size=32,
            lr_batch=32,
            lr=0.03,
            key_momentum=0.99,
            temperature=0.2,
            sub_batch=16,
            epochs=6,
            iterations=None if self.iterations is None else MINIATURE_STEPS,
            schedule=schedule,
            augmentation={**self.augmentation.model_dump(mode="json"), **views},
            evaluation={"resize": 48, "crop": 48},
            loader={"workers": 0, "cache": 256},
            log_every=33,
            checkpoint_seconds=20,
        )

    def fit(self, images: int) -> Self:
        """Derive what suits another number of images than ImageNet's.

        The queue has at most half of them, so that an image seldom meets its own keys of the epoch
        before as negatives; it is a power of two, as the paper's. Fewer images are seen more often,
        but not as much more often as they are fewer: epochs grow with the root of the ratio, to
        eight times as many at most.

        Args:
            images: How many there are to train on.

        Raises:
            ConfigError: if they are too few for one batch of negatives.
        """
        if images < 2 * self.batch_size:
            raise ConfigError(
                f"pre-training takes {2 * self.batch_size} images at least, two batches of "
                f"{self.batch_size}; there are {images}: give more, or set a smaller batch_size"
            )
        fewer = (IMAGENET_IMAGES / images) ** 0.5
        changes: dict[str, object] = {}
        if self.iterations is None:
            changes["epochs"] = max(1, round(self.epochs * min(fewer, 8)))
        if self.mechanism == "moco":
            queue = self.negatives
            while queue > images / 2 and queue % 2 == 0 and queue // 2 >= self.batch_size:
                queue //= 2
            changes["negatives"] = queue
        if self.knn is not None:
            neighbours = min(self.knn.neighbours, max(1, images // 10))
            changes["knn"] = {**self.knn.model_dump(mode="json"), "neighbours": neighbours}
        return self.derive(**changes)

    def inspect(self, inputs: Mapping[str, Path]) -> None:
        """Refuse a queue that is longer than there are images.

        Raises:
            ConfigError: with what is proposed.
        """
        if self.mechanism != "moco" or "data" not in inputs:
            return
        images = count_training_images(inputs["data"], self.data, at_most=self.negatives)
        if images < self.negatives:
            fitting = self.fit(images)
            length = "" if self.iterations else f" and {fitting.epochs} epochs"
            raise ConfigError(
                f"{self.negatives:,} negatives are more than the {images:,} images of "
                f"{inputs['data']}, each of which would be its own negative: "
                f"{fitting.negatives:,}{length} are proposed, which --scale fit takes"
            )

    def layouts(self) -> Mapping[str, str]:
        """Return the layouts of the data and of the monitor's images."""
        return {"data": self.data, "monitor": MONITORED}

    def gpu_hours(self, gpus: Gpus = V100S) -> float | None:
        """Estimate the hours of GPUs on ImageNet-1M, at the 168 images/s of a V100 (Sec. 3.3).

        Other encoders take as much longer as they multiply more. How long epochs of other images
        take is not known before they are counted.
        """
        if self.iterations is not None:
            images = self.iterations * self.batch_size
        elif self.data == MONITORED:
            images = self.epochs * IMAGENET_IMAGES
        else:
            return None
        rate = gpus.per_second("pretrain", self.batch_size) or 168
        return images * relative_cost(self.architecture) / rate / 3600

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return the length of training in steps."""
        return self.iterations or self.epochs * steps_per_epoch

    def encoder_cost(self, inputs: Mapping[str, Path]) -> float | None:
        """Say what the encoder costs that is trained."""
        return relative_cost(self.architecture)


def ig1b() -> PretrainConfig:
    """Return the config for a billion images (Sec. 3.3): 1.25 million steps on 64 GPUs.

    The rate is multiplied by 0.9 every 62.5 thousand steps. There are no classes to vote on.
    """
    return PretrainConfig(
        data="images",
        batch_size=1024,
        lr=0.12,
        lr_batch=1024,
        sub_batch=16,
        iterations=1_250_000,
        schedule=Schedule(kind="every", every=62_500, gamma=0.9),
        knn=None,
    )


def moco_v2_config(**changes: object) -> PretrainConfig:
    """Return MoCo v2's config: MLP head, blur, cosine schedule, temperature 0.2."""
    config = PretrainConfig(
        head="mlp",
        temperature=0.2,
        augmentation=moco_v2(),
        schedule=Schedule(kind="cosine"),
    )
    return config.derive(**changes)


STAGE = Stage(
    name="pretrain",
    summary="Pre-train an encoder without labels (Sec. 3).",
    config=PretrainConfig,
    inputs={
        "data": Port("Dataset", "training images", foreign=True),
        "monitor": Port(
            "Dataset",
            "ImageNet folders for the kNN monitor; by default the training data, if labelled",
            optional=True,
            foreign=True,
        ),
    },
    outputs={
        "encoder": Port("Model", "encoder.safetensors, head.safetensors, model.json"),
        "metrics": Port("Metrics", "pretext and kNN accuracy over epochs"),
    },
    run="components.pretrain.train:run",
    resources=Resources(gpus=8, cpus=64, memory=256, shared_memory=64),
    resumable=True,
)
