"""The work of the pre-training stage."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.core.errors import ConfigError, DataError
from components.core.log import get_logger
from components.core.main import Job
from components.core.metrics import Metrics, write_metrics
from components.pretrain import KnnConfig, PretrainConfig
from components.pretrain.knn import KnnMonitor
from components.pretrain.mechanisms import Mechanism, build_mechanism
from components.training import distributed
from components.training.history import History
from components.training.images import corrupt_images, rank_loader
from components.training.loop import Batch, Learner, train
from components.vision.backbones import write_encoder
from components.vision.batch import Batch as Images
from components.vision.config import AugmentationConfig
from components.vision.device import finish_views
from components.vision.image_sets import read_image_set

log = get_logger(__name__)


def run(job: Job[PretrainConfig]) -> None:
    """Pre-train, in as many processes as there are GPUs."""
    config = job.config
    monitor = job.input("monitor") if job.has_input("monitor") else None
    if monitor is None and config.data == "imagenet":
        monitor = job.input("data")
    if config.knn is not None and monitor is None:
        raise ConfigError(
            "knn: images without classes have nothing to vote on; give ImageNet folders with "
            "--mount.monitor, or set knn to null"
        )
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
    _check_shares(config)
    images = read_image_set(config.data, job.input("data"), "train")
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
        prepare=partial(_prepare, config.augmentation),
        evaluate=None if monitor is None else partial(_measure, monitor, mechanism),
        evaluate_every=(config.knn.every if config.knn else 1) * loader.steps,
    )
    history = train(
        learner,
        config,
        total_steps=config.epochs * loader.steps,
        state=job.state,
        identity=job.identity,
        output=metrics,
    )
    corrupt = corrupt_images(loader)
    if distributed.rank() == 0:
        _write_encoder(mechanism, config, job.output("encoder"))
        write_metrics(metrics, _metrics(history, len(images), corrupt))
    return {"corrupt_images": len(corrupt)}


def _check_shares(config: PretrainConfig) -> None:
    share, rest = divmod(config.batch_size, distributed.world())
    if rest or (config.shuffle != "none" and share > config.sub_batch and share % config.sub_batch):
        raise ConfigError(
            f"batch_size {config.batch_size} over {distributed.world()} processes cannot be split "
            f"into sub-batches of {config.sub_batch}; choose a batch_size that is a multiple of "
            f"{distributed.world() * config.sub_batch}"
        )


def _prepare(augmentation: AugmentationConfig, images: Images, device: torch.device) -> Batch:
    images = images.to(device)
    query, key = finish_views(images, augmentation)
    return {"query": query, "key": key, "index": images.indices}


def _monitor(
    knn: KnnConfig | None, config: PretrainConfig, folder: Path | None
) -> KnnMonitor | None:
    if knn is None or folder is None:
        return None
    bank = read_image_set("imagenet", folder, "train")
    if knn.bank_images is not None and knn.bank_images < len(bank):
        spread = np.linspace(0, len(bank) - 1, knn.bank_images).astype(np.int64)
        bank = replace(bank, files=[bank.files[i] for i in spread], labels=bank.labels[spread])
    held_out = read_image_set("imagenet", folder, "val")
    if bank.classes != held_out.classes:
        raise DataError(
            f"{folder}: train and val have different classes; `moco data check imagenet` lists them"
        )
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


def _measure(monitor: KnnMonitor, mechanism: Mechanism, _: int) -> dict[str, float]:
    return {"knn_accuracy": monitor.measure(mechanism.query)}


def _write_encoder(mechanism: Mechanism, config: PretrainConfig, folder: Path) -> None:
    encoder = mechanism.query
    card = {
        "mechanism": config.mechanism,
        "head": config.head,
        "epochs": config.epochs,
    }
    write_encoder(folder, encoder.backbone, encoder.head, card)


def _metrics(history: History, images: int, corrupt: list[dict[str, str]]) -> Metrics:
    names = ("loss", "pretext_accuracy", "knn_accuracy")
    curves = {name: curve for name in names if (curve := history.curve(name))}
    return Metrics(
        values={name: curve[-1][1] for name, curve in curves.items()},
        curves=curves,
        details={"training_images": images, "corrupt_images": [*corrupt]},
    )
