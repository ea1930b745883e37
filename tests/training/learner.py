"""A small learner with everything that a resume must bring back, and a program that trains it."""

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from components.core import log
from components.core.content import describe
from components.core.main import guarded
from components.training import distributed
from components.training.config import Schedule, TrainingConfig
from components.training.learner import Batch, Learner, Losses
from components.training.loop import train

CONFIG = TrainingConfig(
    batch_size=8,
    lr_batch=8,
    lr=0.05,
    schedule=Schedule(drops=(0.5,)),
    log_every=3,
    checkpoint_seconds=1e-9,
)

PAUSE = float(os.environ.get("MOCO_TEST_PAUSE", "0"))  # seconds before each batch
DROPOUT = float(os.environ.get("MOCO_TEST_DROPOUT", "0.3"))


class Batches:
    steps = 7

    def __init__(self, config: TrainingConfig, poison: int | None = None) -> None:
        self.share = config.batch_size // distributed.world()
        self.batch_size = config.batch_size
        self.poison = poison

    def between(self, first: int, end: int) -> Iterator[Batch]:
        for epoch, step in (divmod(number, self.steps) for number in range(first, end)):
            generator = torch.Generator().manual_seed(1000 * epoch + step)
            images = torch.randn(self.batch_size, 3, 8, 8, generator=generator)
            labels = torch.randint(0, 4, (self.batch_size,), generator=generator)
            if self.poison == epoch * self.steps + step:
                images[-1, 0, 0, 0] = float("nan")
            time.sleep(PAUSE)
            mine = slice(distributed.rank() * self.share, (distributed.rank() + 1) * self.share)
            yield {"images": images[mine], "labels": labels[mine]}


class Model(nn.Module):
    """Convolution, batch norm, dropout (which draws random numbers) and a buffer."""

    seen: Tensor

    def __init__(self, dropout: float = 0.3, norm: bool = True) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(8 * 36, 4),
        )
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def weight_norm(self) -> Tensor:
        squares = [parameter.square().sum() for parameter in self.parameters()]
        return torch.stack(squares).sum().sqrt()

    def forward(self, batch: Batch) -> Losses:
        self.seen += len(batch["labels"])
        logits = self.layers(batch["images"])
        accuracy = (logits.argmax(1) == batch["labels"]).float().mean()
        return nn.functional.cross_entropy(logits, batch["labels"]), {"accuracy": accuracy}


def to_device(raw: Any, device: torch.device, _: int) -> Batch:
    return {name: tensor.to(device) for name, tensor in raw.items()}


def work(
    config: TrainingConfig,
    folder: str,
    steps: int = 28,
    dropout: float = DROPOUT,
    norm: bool = True,
    poison: int | None = None,
    evaluate_every: int = Batches.steps,
    data: str | None = None,
) -> str:
    """Train, as if on the data of a folder, and return the SHA-256 of the weights."""
    torch.manual_seed(config.seed)
    module = Model(dropout, norm)
    output = Path(folder, "output")
    output.mkdir(parents=True, exist_ok=True)

    def evaluate(_: int) -> dict[str, float]:
        torch.rand(3)  # which the dropout of the next step must not notice
        return {"weight_norm": float(module.weight_norm())}

    learner = Learner(
        module=module,
        batches=Batches(config, poison),
        prepare=to_device,
        evaluate=evaluate,
        evaluate_every=evaluate_every,
        uniform=True,
    )
    trained = train(
        learner,
        config,
        total_steps=steps,
        state=f"{folder}/state",
        identity={
            "config": config.identity(),
            "data": {"data": describe(Path(data)).to_json()} if data else {},
        },
        output=output,
    )
    Path(folder, "told.json").write_text(json.dumps(dict(trained.told)))
    weights = Path(folder, f"weights-{distributed.rank()}.safetensors")
    save_file({name: t.contiguous() for name, t in module.state_dict().items()}, weights)
    return hashlib.sha256(weights.read_bytes()).hexdigest()


if __name__ == "__main__":
    log.configure()
    torch.set_num_threads(1)
    processes, poison = int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None
    config = CONFIG.derive(**json.loads(os.environ.get("MOCO_TEST_CONFIG", "{}")))
    sys.exit(
        guarded(
            lambda: print(distributed.launch(processes, work, config, sys.argv[1], poison=poison))
        )
    )
