"""A training that is stopped anywhere ends as if nothing had happened; two processes agree."""

import itertools
import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from components.core.errors import Interrupted
from components.detection import coco, train
from components.detection.predict import Predicted, predict
from tests.detection.making import LIBRARIES, Run, evaluate, run_here, start

CONFIG = coco.mask_rcnn_fpn()
SHORT: dict[str, Any] = {
    "iterations": 8,
    "batch_size": 2,
    "precise_bn": 2,
    "checkpoint_seconds": 0.001,
    "log_every": 1,
    "flip": 0.5,
    "evaluations": 4,
}


@pytest.fixture(scope="module", params=LIBRARIES)
def short(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The changes of a config that make a training short, with each library."""
    return {**SHORT, "library": request.param}


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, world: Path, backbone: Path, short: dict[str, Any]
) -> Run:
    return run_here(CONFIG, world / "coco", backbone, tmp_path_factory.mktemp("whole"), **short)


def assert_same(one: Run, other: Run) -> None:
    weights = [load_file(run.folder / "model/detector.safetensors") for run in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    results = [(run.folder / "predictions/results.json").read_bytes() for run in (one, other)]
    assert results[0] == results[1]
    assert one.metrics.values == other.metrics.values
    assert one.metrics.curves == other.metrics.curves


def test_a_killed_training_continues_to_the_same_weights(
    whole: Run, short: dict[str, Any], tmp_path: Path, world: Path, backbone: Path
) -> None:
    killed = start(CONFIG, world / "coco", backbone, tmp_path, **short)
    while not list((tmp_path / "state/checkpoints").glob("*/manifest.json")):
        assert killed.poll() is None, killed.communicate()[1]
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=30)
    assert killed.returncode == -signal.SIGKILL
    assert_same(run_here(CONFIG, world / "coco", backbone, tmp_path, **short), whole)


def test_measuring_on_the_way_leaves_no_trace_but_a_curve(
    whole: Run, short: dict[str, Any], tmp_path: Path, world: Path, backbone: Path
) -> None:
    once = {**short, "evaluations": 1}
    run = run_here(CONFIG, world / "coco", backbone, tmp_path, **once)
    assert "AP" not in run.metrics.curves
    followed = whole.metrics.curves["AP"]
    ends = dict(whole.metrics.curves["loss"])  # each step's, by epoch
    assert [epoch for epoch, _ in followed] == list(ends)[1::2]
    assert followed[-1][1] == whole.metrics.values["AP"] == run.metrics.values["AP"]
    weights = [load_file(one.folder / "model/detector.safetensors") for one in (run, whole)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


def test_a_training_stopped_while_it_evaluates_does_not_train_again(
    whole: Run,
    short: dict[str, Any],
    tmp_path: Path,
    world: Path,
    backbone: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = itertools.count(1)

    def stopped(*given: Any) -> Predicted:
        if next(measured) < SHORT["evaluations"]:
            return predict(*given)
        raise Interrupted("stopped in the middle of the last evaluation")

    with monkeypatch.context() as patch:
        patch.setattr(train, "predict", stopped)
        with pytest.raises(Interrupted):
            run_here(CONFIG, world / "coco", backbone, tmp_path, **short)
    steps = list((tmp_path / "state/checkpoints").glob("*/manifest.json"))
    assert max(int(step.parent.name) for step in steps) == SHORT["iterations"]
    assert_same(run_here(CONFIG, world / "coco", backbone, tmp_path, **short), whole)


def test_two_processes_train_with_synchronised_norm_and_share_the_evaluation(
    whole: Run, short: dict[str, Any], tmp_path: Path, world: Path, backbone: Path
) -> None:
    run = run_here(CONFIG, world / "coco", backbone, tmp_path, processes=2, **short)
    names = load_file(whole.folder / "model/detector.safetensors").keys()
    assert load_file(run.folder / "model/detector.safetensors").keys() == names
    # Each rank had one image of the batch; the first loss is that of the same two images,
    # up to which regions are sampled.
    first, expected = (one.metrics.curves["loss"][0][1] for one in (run, whole))
    assert first == pytest.approx(expected, rel=0.2)
    model = {"model": run.folder / "model", "backbone": backbone}
    again = evaluate(tmp_path / "again", world / "coco", "coco", **model)
    assert again.values == pytest.approx(run.metrics.values, abs=0.05)
    annotations = world / "coco/annotations/instances_val2017.json"
    assert len(json.loads(annotations.read_text())["images"]) == 20
