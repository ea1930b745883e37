import json
from collections.abc import Callable
from pathlib import Path

import pytest

from components.core.manifest import read_manifest
from components.core.metrics import Metrics
from components.report.measured import Measured, read_measured

Make = Callable[..., Path]
Photograph = Callable[..., bytes]


def _read(folder: Path) -> Measured:
    return read_measured(folder, read_manifest(folder))


def test_an_artifacts_pictures_and_classes_are_read_as_they_are(
    artifact: Make, photograph: Photograph
) -> None:
    classes = [
        {"class": "crane", "images": 4, "AP": 50.0},
        {"class": "no ground truth", "images": 0, "AP": None},
        {"class": "crane", "images": 2, "AP": 25.0, "remark": "another crane"},
    ]
    files = {
        "per_class.json": json.dumps(classes).encode(),
        "pictures/b.jpg": photograph("JPEG", width=64),
        "pictures/a.png": photograph("PNG", width=48),
    }

    measured = _read(artifact("key", Metrics(values={"AP": 1.0}), files=files))

    assert measured.faults == ()
    assert measured.classes == {
        "crane": {"images": 4, "AP": 50.0},
        "no ground truth": {"images": 0, "AP": None},
        "crane (2)": {"images": 2, "AP": 25.0},
    }
    kept = [(one.name, one.kind, one.width, one.height) for one in measured.pictures]
    assert kept == [("a", "png", 48, 36), ("b", "jpeg", 64, 48)]
    assert [one.entry.size for one in measured.pictures] == [
        len(files["pictures/a.png"]),
        len(files["pictures/b.jpg"]),
    ]


@pytest.mark.parametrize(
    ("name", "kind", "fault"),
    [
        ("pictures/a.jpg", "PNG", "is called JPEG and is PNG"),
        ("pictures/a.png", "JPEG", "is called PNG and is JPEG"),
        ("pictures/a.png", "GIF", "is neither a PNG nor a JPEG"),
        ("pictures/a.svg", "PNG", "is not called pictures/NAME.png"),
        ("pictures/a](b.png", "PNG", "is not called pictures/NAME.png"),
    ],
)
def test_a_picture_that_is_not_what_its_name_says_is_left_out_with_a_word(
    name: str, kind: str, fault: str, artifact: Make, photograph: Photograph
) -> None:
    files = {name: photograph(kind), "pictures/good.png": photograph()}

    measured = _read(artifact("key", Metrics(values={}), files=files))

    assert [one.name for one in measured.pictures] == ["good"]
    (sentence,) = measured.faults
    assert sentence.startswith(name)
    assert fault in sentence


@pytest.mark.parametrize("content", [b"{", b'{"cat": 1}', b'[{"name": "cat"}]', b"\x89PNG"])
def test_classes_that_cannot_be_read_are_left_out_with_a_word(
    content: bytes, artifact: Make
) -> None:
    folder = artifact("key", Metrics(values={"AP": 1.0}), files={"per_class.json": content})

    measured = _read(folder)

    assert measured.classes == {}
    assert measured.metrics.values == {"AP": 1.0}
    assert [fault.split()[0] for fault in measured.faults] == ["per_class.json"]
