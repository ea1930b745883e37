"""Predictions as files in the data set's own format, and what is measured of such files."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import JsonValue

from components.core.errors import DataError, UsageError
from components.core.log import get_logger
from components.core.metrics import Metrics, write_metrics, write_per_class
from components.core.stage import Job
from components.datasets.interface import SegmentationReader
from components.datasets.loading import segmentation_reader
from components.datasets.semantic import SemanticSet, palette
from components.evaluation.figures import Figures
from components.evaluation.semantic import IGNORED
from components.segmentation import SegmentationConfig
from components.segmentation.data import whole_images
from components.segmentation.evaluate import EvaluateSegmentationConfig
from components.segmentation.model import FCN, ModelCard, normalised, read_model
from components.training import distributed
from components.training.history import History
from components.vision.config import LoaderConfig
from components.vision.decoding import Pixels, read_image
from components.vision.pictures import PICTURES, Colour, drawing, write_sheet

log = get_logger(__name__)

_SHOWN = 6  # images of the sheet


def run(job: Job[EvaluateSegmentationConfig]) -> None:
    """Measure a model or stored predictions."""
    config, data = job.config, job.input("data")
    if job.has_input("model") == job.has_input("predictions"):
        raise UsageError(
            "segmentation.evaluate measures a model or stored predictions: give one of "
            "--input.model and --input.predictions"
        )
    reader = segmentation_reader(config.dataset)
    split = config.split or reader.validation
    images = reader.read(data, split)
    with tempfile.TemporaryDirectory() as folder:
        predictions = Path(folder)
        if job.has_input("predictions"):
            predictions = job.input("predictions")
        else:
            model = job.input("model")
            distributed.launch(config.processes, _predict_all, config, data, model, predictions)
        write_measured(
            job.output("metrics"),
            predictions,
            images,
            reader=reader,
            split=split,
        )


def _predict_all(config: EvaluateSegmentationConfig, data: Path, model: Path, folder: Path) -> None:
    """Write a model's predictions, as one of the processes."""
    reader = segmentation_reader(config.dataset)
    images = reader.read(data, config.split or reader.validation)
    fcn, card = read_model(model)
    if card.classes != images.classes:
        raise DataError(
            f"{model} was trained on {card.dataset} with {len(card.classes)} classes, {data} has "
            f"{len(images.classes)} or others: {', '.join(images.classes)}; measure it on its own "
            "data set"
        )
    fcn.to(distributed.device())
    write_predictions(folder, predict(fcn, card, images, config.loader, config.test_batch))


@torch.no_grad()
def predict(
    fcn: FCN, card: ModelCard, images: SemanticSet, loader: LoaderConfig, test_batch: int
) -> dict[str, bytes]:
    """Predict the class of every pixel at the original size, in single precision. Collective.

    Returns:
        For the images of all ranks, on every rank: file names and contents, PNG in the data set's
        own numbers.
    """
    log.info("predicting", images=len(images))
    distributed.share_buffers(fcn)
    fcn.eval()
    device = distributed.device()
    reader = segmentation_reader(card.dataset)
    files: dict[str, bytes] = {}
    with torch.autocast(device.type, enabled=False):
        for raw in whole_images(images, loader, test_batch).epoch():
            if not len(raw.indices):
                continue  # a rank's last share
            batch = raw.to(device)
            labels = fcn.logits(normalised(batch.images, card)).argmax(1).to(torch.uint8).cpu()
            for index, own in zip(raw.indices.tolist(), labels, strict=True):
                name = reader.prediction_name(images.image_id(index))
                files[name] = reader.encode(own.numpy())
    shares = distributed.gather_objects(files)
    return {name: content for share in shares for name, content in share.items()}


def write_predictions(folder: Path, predicted: Mapping[str, bytes]) -> None:
    """Write the files of all images; rank 0 does."""
    if distributed.rank() == 0:
        for name, content in predicted.items():
            (folder / name).write_bytes(content)


def follow(
    fcn: FCN,
    card: ModelCard,
    images: SemanticSet,
    config: SegmentationConfig,
) -> Mapping[str, float]:
    """Measure a model that is still in training. Collective."""
    predicted = predict(fcn, card, images, config.loader, config.test_batch)
    figures: Mapping[str, float] = {}
    if distributed.rank() == 0:
        with tempfile.TemporaryDirectory() as folder:
            write_predictions(Path(folder), predicted)
            reader = segmentation_reader(card.dataset)
            figures = reader.measure(images, reader.validation, Path(folder)).values
    # Here the others wait for as long as that takes, not in an exchange between GPUs.
    return distributed.gather_objects(figures)[0]


def write_measured(
    metrics: Path,
    predictions: Path,
    images: SemanticSet,
    *,
    reader: SegmentationReader,
    split: str,
    history: History | None = None,
    **details: JsonValue,
) -> None:
    """Measure stored predictions and write the metrics artifact, with a sheet of some images.

    Args:
        metrics: The artifact's folder.
        predictions: Folder of label maps.
        images: What was predicted.
        reader: Of the data set.
        split: Its list.
        history: Of the training, if there was one.
        **details: What else to tell of it.

    Raises:
        DataError: if the predictions do not fit.
    """
    figures = reader.measure(images, split, predictions)
    log.info("evaluated", **{name: round(value, 2) for name, value in figures.values.items()})
    details |= {
        "dataset": reader.name,
        "split": split,
        "images": len(images),
    }
    curves = history.curves(figures.values) if history else {}
    write_metrics(metrics, Metrics(values=dict(figures.values), curves=curves, details=details))
    write_per_class(metrics, _per_class(figures, images))
    sheet = metrics / PICTURES / "predictions.jpg"
    with drawing(sheet):
        _write_pictures(sheet, images, reader, predictions)


def _per_class(figures: Figures, images: SemanticSet) -> Iterator[dict[str, JsonValue]]:
    """Yield for every class in how many images it is, and its IoU if it has one."""
    shown = Counter(label for i in range(len(images)) for label in np.unique(images.labels(i)))
    for label, name in enumerate(images.classes):
        yield {"class": name, "images": shown[label], "IoU": figures.per_class.get(name)}


def _write_pictures(
    path: Path, images: SemanticSet, reader: SegmentationReader, predictions: Path
) -> None:
    colours = palette()
    shown = np.unique(np.linspace(0, len(images) - 1, _SHOWN).round().astype(int)).tolist()
    rows: list[Sequence[Pixels]] = []
    seen: set[int] = set()
    for index in shown:
        truth = images.labels(index)
        predicted = reader.decode(predictions, images.image_id(index))
        seen |= {*np.unique(truth).tolist(), *np.unique(predicted).tolist()}
        rows.append((read_image(images.path(index)), colours[truth], colours[predicted]))
    names = {**dict(enumerate(images.classes)), IGNORED: "does not count"}
    legend: dict[str, Colour] = {
        names[label]: tuple(colours[label].tolist()) for label in sorted(seen)
    }
    write_sheet(path, ("image", "ground truth", "prediction"), rows, legend)
