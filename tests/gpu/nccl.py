"""Trains as the only process of an NCCL group, as torchrun would: `-m tests.gpu.nccl FOLDER`.

All exchanges are made, DDP's too, and all of a step is captured.
"""

import sys
from pathlib import Path

import torch

from components.pretrain import PretrainConfig
from components.pretrain.mechanisms import build_mechanism
from components.pretrain.shuffling import deal, draw_order
from components.training import distributed
from components.training.config import TrainingConfig
from components.training.learner import Learner
from components.training.loop import train
from components.training.step import WARM_UP
from tests.training.learner import CONFIG, work

PRETRAIN = PretrainConfig(
    architecture="resnet_digits", batch_size=16, sub_batch=8, negatives=64, dim=16
)


class Same:
    """The same batch at every step."""

    steps = 1000

    def __init__(self, batch: torch.Tensor) -> None:
        self.batch = batch

    def between(self, first: int, end: int) -> object:
        yield from [self.batch] * (end - first)


def pretrain(folder: str) -> None:
    """Take steps of pre-training; keys are dealt over NCCL, beside the step before."""
    torch.manual_seed(0)
    mechanism = build_mechanism(PRETRAIN, 1)

    def prepare(raw: torch.Tensor, device: torch.device, step: int) -> dict[str, torch.Tensor]:
        order = draw_order(len(raw), step)
        images = raw.to(device)
        places = torch.argsort(order).to(device)
        return {"query": images, "key": deal(images.flip(3), order), "places": places}

    train(
        Learner(mechanism, Same(torch.randn(16, 3, 40, 40)), prepare, uniform=True),  # type: ignore[arg-type]
        TrainingConfig(**PRETRAIN.model_dump(include=set(TrainingConfig.model_fields))),
        total_steps=WARM_UP + 9,
        state=f"{folder}/pretrain",
        identity={},
        output=Path(folder),
    )
    assert int(mechanism.oldest) == 16 * (WARM_UP + 9) % 64  # type: ignore[arg-type]
    print("a step of pre-training was captured")


with distributed.process_group():
    assert torch.distributed.get_backend() == "nccl"
    work(CONFIG.derive(precision="fp32", deterministic=True), sys.argv[1])
    pretrain(sys.argv[1])
