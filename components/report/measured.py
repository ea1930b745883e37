"""Reads what a report needs of a metrics artifact: figures, those of each class, pictures."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from components.core.errors import DataError
from components.core.manifest import FileEntry, Lineage, Manifest
from components.core.metrics import PER_CLASS, Metrics, read_metrics

PICTURES = "pictures"

_KINDS: Mapping[str, Literal["png", "jpeg"]] = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class PictureFile:
    """A picture of a metrics artifact; its content is of the kind that its name says."""

    name: str
    path: Path
    kind: Literal["png", "jpeg"]
    width: int
    height: int
    entry: FileEntry


@dataclass(frozen=True)
class Measured:
    """A metrics artifact: what it holds, and where it came from.

    Attributes:
        metrics: Its figures.
        lineage: Where it came from.
        classes: Figures of each class by name, in the order of the data set; counts are
            integers, None is a figure that the class does not have.
        pictures: In the order of their names.
        faults: What it holds beside that and cannot be shown, one sentence each.
    """

    metrics: Metrics
    lineage: Lineage
    classes: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    pictures: tuple[PictureFile, ...] = ()
    faults: tuple[str, ...] = ()


def read_measured(folder: Path, manifest: Manifest) -> Measured:
    """Read a verified metrics artifact.

    A file of classes or a picture that is not what its name says is a fault of the artifact
    that no number depends on: it is left out, with a sentence that says so.

    Args:
        folder: The artifact's.
        manifest: Lists its files.

    Raises:
        DataError: if the figures are missing or malformed.
    """
    faults: list[str] = []
    classes: Mapping[str, Mapping[str, float | None]] = {}
    if PER_CLASS in manifest.files:
        try:
            classes = _read_classes(folder / PER_CLASS)
        except DataError as error:
            faults.append(str(error))
    pictures = []
    for name, entry in sorted(manifest.files.items()):
        if name.startswith(f"{PICTURES}/"):
            try:
                pictures.append(_read_picture(folder, name, entry))
            except DataError as error:
                faults.append(str(error))
    return Measured(
        metrics=read_metrics(folder),
        lineage=manifest.lineage(),
        classes=classes,
        pictures=tuple(pictures),
        faults=tuple(faults),
    )


class _Class(BaseModel):
    """An entry of `per_class.json`: a name and figures."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)

    name: str = Field(alias="class")

    def figures(self) -> Iterator[tuple[str, float | None]]:
        for name, value in self.__pydantic_extra__.items():
            if value is None or (isinstance(value, float) and not math.isfinite(value)):
                yield name, None
            elif isinstance(value, int | float) and not isinstance(value, bool):
                yield name, value


def _read_classes(path: Path) -> dict[str, dict[str, float | None]]:
    try:
        entries = TypeAdapter(list[_Class]).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        problem = str(error).splitlines()[0]
        raise DataError(f"{PER_CLASS} is not a list of classes ({problem}): left out") from None
    classes: dict[str, dict[str, float | None]] = {}
    for entry in entries:
        name, again = entry.name, 1
        while name in classes:  # two classes of one name stay two
            again += 1
            name = f"{entry.name} ({again})"
        classes[name] = dict(entry.figures())
    return classes


def _read_picture(folder: Path, name: str, entry: FileEntry) -> PictureFile:
    file = PurePosixPath(name)
    kind = _KINDS.get(file.suffix)
    if kind is None or len(file.parts) != 2 or not _NAME.fullmatch(file.stem):
        raise DataError(
            f"{name} is not called {PICTURES}/NAME.png or NAME.jpg, with letters, digits, "
            "- and _ in NAME: left out"
        )
    try:
        with Image.open(folder / name, formats=("PNG", "JPEG")) as image:
            actual, (width, height) = (image.format or "").lower(), image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        raise DataError(f"{name} is neither a PNG nor a JPEG picture: left out") from None
    if actual != kind:
        raise DataError(f"{name} is called {kind.upper()} and is {actual.upper()}: left out")
    return PictureFile(file.stem, folder / name, kind, width, height, entry)
