import contextlib
import copy
import io
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from scipy.io import savemat

from components.core.errors import DataError
from components.evaluation.annotations import Record
from components.evaluation.body import FINE_PARTS
from components.evaluation.densepose import decode_iuv, encode_iuv, evaluate_densepose
from components.evaluation.surface import CHARTS, DISTANCES, INDEX, Surface, read_surface

SIDE = 5  # vertices along a chart's side
LENGTH = 0.2  # metres of a chart's side: the charts lie in a row


def write_surface(folder: Path) -> None:
    """Write a flat surface of 24 square charts in a row, in DensePose's own formats."""
    steps = np.linspace(0, 1, SIDE)
    u, v = (grid.ravel() for grid in np.meshgrid(steps, steps))
    parts = np.repeat(np.arange(1, FINE_PARTS + 1), SIDE**2)
    us, vs = np.tile(u, FINE_PARTS), np.tile(v, FINE_PARTS)
    points = np.stack(((parts + us) * LENGTH, vs * LENGTH), 1)
    order = np.random.default_rng(0).permutation(len(points))  # subdivided vertex to vertex
    placed = np.empty_like(points)
    placed[order] = points
    high, low = np.tril_indices(len(points), -1)
    apart = np.linalg.norm(placed[high] - placed[low], axis=1).astype(np.float32)
    savemat(
        folder / CHARTS,
        {"U_subdiv": us[:, None], "V_subdiv": vs[:, None], "Part_ID_subdiv": parts[:, None]},
    )
    savemat(folder / INDEX, {"index": order[None] + 1})
    (folder / DISTANCES).write_bytes(pickle.dumps({"Pdist_matrix": apart[:, None]}, protocol=2))


@pytest.fixture
def surface(tmp_path: Path) -> Surface:
    write_surface(tmp_path)
    return read_surface(tmp_path)


def person(random: np.random.Generator, image: int, identity: int) -> tuple[Record, Any]:
    """Return an annotation whose charts are stripes, and its parts and coordinates."""
    x, y = random.uniform(0, 100, 2)
    width, height = random.uniform(12, 140, 2)
    iuv = np.zeros((3, int(height), int(width)), np.uint8)
    iuv[0] = np.linspace(1, FINE_PARTS + 0.99, iuv.shape[2]).astype(np.uint8)
    iuv[1:] = random.integers(0, 256, (2, *iuv.shape[1:]))
    rows, columns = (random.integers(0, size, 30) for size in iuv.shape[1:])
    values = iuv[:, rows, columns].astype(float)
    return {
        **{"id": identity, "image_id": image, "category_id": 1, "iscrowd": 0},
        **{"bbox": [x, y, width, height], "area": width * height * random.uniform(0.4, 1)},
        **{"dp_x": ((columns + 0.5) * 255 / width).tolist()},
        **{"dp_y": ((rows + 0.5) * 255 / height).tolist()},
        **{"dp_I": values[0].tolist()},
        **{"dp_U": (values[1] / 255).tolist(), "dp_V": (values[2] / 255).tolist()},
    }, iuv


def write_world(seed: int) -> tuple[Record, list[Record]]:
    """Return persons, some crowded or without points, and finds near and far, with ties."""
    random = np.random.default_rng(seed)
    annotations: list[Record] = []
    results = []
    images = range(15)
    for image in images:
        for _ in range(random.choice([0, 1, 3, 6])):
            true, iuv = person(random, image, len(annotations) + 1)
            annotations.append(true)
            if random.random() < 0.3:
                for name in [name for name in true if name.startswith("dp_")]:
                    del true[name]
                true["iscrowd"] = int(random.random() < 0.5)
            for _ in range(random.integers(0, 4)):
                results.append(find(random, true, iuv))
        for _ in range(random.choice([0, 1, 25])):
            stray, iuv = person(random, image, 0)
            results.append(find(random, stray, iuv))
    document = {
        "info": {},
        "images": [{"id": image, "height": 300, "width": 300} for image in images],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": annotations,
    }
    return document, results


def find(random: np.random.Generator, true: Record, iuv: Any) -> Record:
    """Return a prediction: the truth with noise in place, part and coordinates."""
    noisy = iuv.copy()
    noise = random.normal(size=(2, *iuv.shape[1:])) * random.choice([0, 10, 60, 150])
    noisy[1:] = np.clip(noisy[1:] + noise, 0, 255).astype(np.uint8)
    lost = random.random(iuv.shape[1:]) < random.choice([0, 0.1, 0.4])
    noisy[0] = np.where(lost, random.integers(0, FINE_PARTS + 1), noisy[0])
    x, y, width, height = true["bbox"]
    by = random.choice([0, 0.4, 3], 2)
    return {
        **{"image_id": true["image_id"], "category_id": 1, "score": round(random.random(), 1)},
        **{"bbox": [x + by[0], y + by[1], width, height]},
        **encode_iuv(noisy),
    }


@pytest.mark.parametrize("seed", range(6))
def test_every_figure_is_that_of_detectron2(
    seed: int, tmp_path: Path, surface: Surface, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = pytest.importorskip("densepose.evaluation.densepose_coco_evaluation")
    torch = pytest.importorskip("torch")
    annotations, results = write_world(seed)

    figures = evaluate_densepose(annotations, results, surface)

    paths = SimpleNamespace(get_local_path=lambda url, **_: str(tmp_path / Path(url).name))
    monkeypatch.setattr(module, "PathManager", paths)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(annotations)
        truth.createIndex()
        found = truth.loadRes(copy.deepcopy(results))
    for one in found.anns.values():
        iuv = torch.from_numpy(decode_iuv(one).copy())
        one["densepose"] = SimpleNamespace(labels_uv_uint8=iuv)
    evaluation = module.DensePoseCocoEval(truth, found, "densepose")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    expected = dict(zip(("AP", "AP50", "AP75", "APm", "APl"), evaluation.stats, strict=False))
    assert figures.values == pytest.approx(
        {name: value * 100 for name, value in expected.items()}, abs=1e-9
    )
    assert 1 < figures.values["AP"] < 99


def test_the_truth_predicted_gives_100_percent(surface: Surface) -> None:
    random = np.random.default_rng(1)
    true, iuv = person(random, 7, 1)
    annotations = {
        "images": [{"id": 7, "height": 300, "width": 300}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [true],
    }
    result = {**true, "score": 1.0, **encode_iuv(iuv)}

    assert evaluate_densepose(annotations, [result], surface).values["AP"] == pytest.approx(100)
    iuv[0] = np.roll(iuv[0], iuv.shape[2] // 2, axis=1)  # half a body away
    result = {**result, **encode_iuv(iuv)}
    assert evaluate_densepose(annotations, [result], surface).values["AP"] == 0
    assert evaluate_densepose(annotations, [], surface).values["AP"] == 0
    assert evaluate_densepose({**annotations, "annotations": []}, [], surface).values == {}


def test_similarity_falls_with_distance_along_the_surface(surface: Surface) -> None:
    """Half a chart away, 0.1 m, on the torso (σ 0.351 m): exp(-0.1² / 2 · 0.351²) = 0.96."""
    found = surface.nearest(np.array([1, 1, 2, 0]), np.array([[0, 0], [0.5, 0], [0, 0], [0, 0]]))

    distances = surface.distance(np.repeat(found[:1], 4), found)

    np.testing.assert_allclose(distances, [0, LENGTH / 2, LENGTH, np.inf], rtol=1e-6)
    np.testing.assert_array_equal(surface.distance(found, np.repeat(found[:1], 4)), distances)


def test_missing_files_are_named_with_where_they_come_from(tmp_path: Path) -> None:
    write_surface(tmp_path)
    (tmp_path / DISTANCES).unlink()
    (tmp_path / INDEX).unlink()
    with pytest.raises(DataError) as error:
        read_surface(tmp_path)
    message = str(error.value)
    assert f"{DISTANCES} (from https://" in message
    assert f"{INDEX} (from https://" in message
    assert f"{CHARTS} (" not in message
    assert "Without them DensePose trains, its boxes are evaluated" in message


def test_files_that_are_not_denseposes_are_refused(tmp_path: Path) -> None:
    write_surface(tmp_path)
    whole = (tmp_path / DISTANCES).read_bytes()
    few = {"Pdist_matrix": np.zeros((7, 1), np.float32)}
    for content, fault in (
        (pickle.dumps(few), "has 7 distances; 600 vertices need 179,700"),
        (pickle.dumps(Path("/tmp")), "is no array"),
        (whole[:1000], "does not hold DensePose's files: "),
    ):
        (tmp_path / DISTANCES).write_bytes(content)
        with pytest.raises(DataError, match=fault):
            read_surface(tmp_path)
    (tmp_path / DISTANCES).write_bytes(whole)
    savemat(tmp_path / INDEX, {"index": np.arange(1, 9)[None]})
    with pytest.raises(DataError, match=rf"{CHARTS} has 600 vertices, {INDEX} 8"):
        read_surface(tmp_path)


def test_predictions_without_coordinates_of_their_box_are_refused(surface: Surface) -> None:
    annotations, results = write_world(0)
    wide = [*results]
    wide[2] = {**wide[2], "bbox": [0.0, 0.0, 300.0, 2.0]}
    with pytest.raises(DataError, match=r"prediction 2 has coordinates of .*needs \[3, 2, 300\]"):
        evaluate_densepose(annotations, wide, surface)
    del results[1]["uv_data"]
    with pytest.raises(DataError, match="prediction 1 has no parts and coordinates"):
        evaluate_densepose(annotations, results, surface)
