"""The work of the pre-training stage."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.core.errors import ConfigError
from components.core.log import get_logger
from components.core.metrics import Metrics, write_metrics
from components.core.stage import Job
from components.datasets.loading import image_reader
from components.pretrain import MONITORED, KnnConfig, PretrainConfig
from components.pretrain.knn import KnnMonitor
from components.pretrain.mechanisms import Mechanism, build_mechanism
from components.pretrain.shuffling import deal_view, draw_order
from components.training import distributed
from components.training.images import corrupt_images, rank_loader
from components.training.learner import Batch, Learner
from components.training.loop import Trained, train
from components.training.machine import check_machine
from components.vision.backbones import write_encoder
from components.vision.batch import Batch as Images
from components.vision.device import finish_views
from components.vision.shares import only

log = get_logger(__name__)


def run(job: Job[PretrainConfig]) -> None:
    """Pre-train, in as many processes as there are GPUs."""
    config = job.config
    monitor = job.input("monitor") if job.has_input("monitor") else None
    if monitor is None and config.data == MONITORED:
        monitor = job.input("data")
    if config.knn is not None and monitor is None:
        raise ConfigError(
            "knn: images without classes have nothing to vote on; give ImageNet folders with "
            "--mount.monitor, or set knn to null"
        )
    # Where a process has more than a sub-batch, it has whole ones.
    share = config.batch_size // distributed.planned_world(config.processes)
    split = config.shuffle != "none" and share > config.sub_batch
    check_machine(config, config.sub_batch if split else 1)
    job.facts.update(distributed.launch(config.processes, pretrain, job, monitor))


def pretrain(job: Job[PretrainConfig], monitored: Path | None) -> dict[str, Any]:
    """Pre-train as one process of the training; rank 0 writes the outputs.

    Args:
        job: The stage's.
        monitored: ImageNet folders for the kNN monitor.

    Returns:
        Facts for the manifest.
    """
    config, metrics = job.config, job.output("metrics")
    images = image_reader(config.data).read(job.input("data"), "train")
    torch.manual_seed(config.seed)
    mechanism = build_mechanism(config, len(images))
    loader = rank_loader(
        images,
        config.augmentation,
        config.loader,
        batch_size=config.batch_size,
        count=2,
        seed=config.seed,
    )
    monitor = _monitor(config.knn, config, monitored)
    learner = Learner(
        module=mechanism,
        batches=loader,
        prepare=partial(_prepare, config, len(images)),
        evaluate=None if monitor is None else partial(_measure, monitor, mechanism),
        evaluate_every=_measured_every(config.knn or KnnConfig(), loader.steps),
        uniform=True,
    )
    trained = train(
        learner,
        config,
        total_steps=config.total_steps(loader.steps),
        state=job.state,
        identity=job.identity,
        output=metrics,
    )
    corrupt = corrupt_images(loader)
    if distributed.rank() == 0:
        _write_encoder(mechanism, config, job.output("encoder"))
        write_metrics(metrics, _metrics(trained, len(images), corrupt))
    return {"corrupt_images": len(corrupt), **trained.told}


def _prepare(
    config: PretrainConfig, samples: int, raw: Images, device: torch.device, step: int
) -> Batch:
    """Make what `Mechanism` wants; all that is random about a step is drawn from its number."""
    seed = (config.seed << 32) + step
    if config.mechanism == "memory_bank":
        query, _ = finish_views(raw.to(device), config.augmentation)
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(samples, (config.negatives,), generator=generator)
        index = raw.indices.to(device, non_blocking=True)
        return {"query": query, "index": index, "drawn": drawn.to(device, non_blocking=True)}
    if config.shuffle != "shuffled":
        query, key = finish_views(raw.to(device), config.augmentation)
        return {"query": query, "key": key}
    order = draw_order(len(raw) * distributed.world(), seed)
    query, key = finish_views(deal_view(raw, 1, order, device), config.augmentation)
    places = torch.argsort(order).to(device, non_blocking=True)
    return {"query": query, "key": key, "places": places}


def _monitor(
    knn: KnnConfig | None, config: PretrainConfig, folder: Path | None
) -> KnnMonitor | None:
    if knn is None or folder is None:
        return None
    bank, held_out = image_reader(MONITORED).read_both(folder)
    if knn.bank_images is not None and knn.bank_images < len(bank):
        spread = np.linspace(0, len(bank) - 1, knn.bank_images).astype(np.int64)
        bank = only(bank, spread)
    make = partial(
        rank_loader, views=config.evaluation, loader=config.loader, batch_size=config.batch_size
    )
    return KnnMonitor(
        bank=make(bank),
        held_out=make(held_out),
        classes=len(bank.classes),
        evaluation=config.evaluation,
        neighbours=knn.neighbours,
        temperature=knn.temperature,
    )


def _measured_every(knn: KnnConfig, steps_per_epoch: int) -> int:
    return knn.every_iterations or knn.every * steps_per_epoch


def _measure(monitor: KnnMonitor, mechanism: Mechanism, _: int) -> dict[str, float]:
    return {"knn_accuracy": monitor.measure(mechanism.query)}


def _write_encoder(mechanism: Mechanism, config: PretrainConfig, folder: Path) -> None:
    encoder = mechanism.query
    card = {
        "mechanism": config.mechanism,
        "head": config.head,
        "epochs": config.epochs,
        "iterations": config.iterations,
    }
    write_encoder(folder, encoder.backbone, encoder.head, card)


def _metrics(trained: Trained, images: int, corrupt: list[dict[str, str]]) -> Metrics:
    names = ("loss", "pretext_accuracy", "knn_accuracy")
    curves = {name: curve for name in names if (curve := trained.history.curve(name))}
    return Metrics(
        values={name: curve[-1][1] for name, curve in curves.items()},
        curves=curves,
        details={"training_images": images, "corrupt_images": [*corrupt], **trained.told},
    )
