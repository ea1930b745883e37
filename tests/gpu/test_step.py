"""The training loop on a GPU: one graph a step, resumes to the bit, errors with a way out."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from components.core.errors import ConfigError, ExitCode, NonFiniteLossError
from components.training.learner import Batch, Learner, Losses
from components.training.loop import train
from components.training.signs import Signs
from components.training.step import WARM_UP
from tests.training.learner import CONFIG, Batches, Model, to_device, work

STEPS = 28
QUIET = CONFIG.derive(checkpoint_seconds=1000)


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "weights-0.safetensors")


def saved(folder: Path) -> list[int]:
    return sorted(int(p.parent.name) for p in folder.glob("state/checkpoints/*/manifest.json"))


def program(folder: Path, *, gpu: bool = True, **changes: Any) -> "subprocess.Popen[str]":
    """Train in a process of its own, with or without the GPU."""
    command = [sys.executable, "-m", "tests.training.learner", str(folder), "1"]
    environment = {**os.environ, "MOCO_TEST_CONFIG": json.dumps(changes)}
    if not gpu:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def interrupted(folder: Path, *, gpu: bool = True, **changes: Any) -> None:
    """Train until some checkpoint is there, and stop."""
    process = program(folder, gpu=gpu, **changes)
    while not saved(folder):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == ExitCode.INTERRUPTED, errors
    assert 0 < saved(folder)[-1] < STEPS


def finished(folder: Path, *, gpu: bool = True, **changes: Any) -> dict[str, Tensor]:
    """Train to the end; return the weights."""
    process = program(folder, gpu=gpu, **changes)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return weights(folder)


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def test_a_captured_step_is_the_launched_one(tmp_path: Path) -> None:
    assert STEPS > 2 * WARM_UP
    results = []
    for number, captured in enumerate((True, False)):
        folder = tmp_path / str(number)
        results.append(finished(folder, cuda_graph=captured, deterministic=True, precision="fp32"))
    assert_equal(*results)


def test_killed_and_resumed_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Before and after a capture, with dropout, whose random numbers go on."""
    changes: dict[str, Any] = {"deterministic": True, "checkpoint_seconds": 1e-9}
    whole = finished(tmp_path / "whole", **changes)
    interrupted(tmp_path / "parts", **changes)
    assert_equal(finished(tmp_path / "parts", **changes), whole)
    history = [
        (tmp_path / name / "output/history.jsonl").read_text() for name in ("whole", "parts")
    ]
    assert history[0] == history[1]


@pytest.mark.parametrize("first_on_gpu", [True, False])
def test_a_checkpoint_of_another_kind_of_machine_is_continued(
    tmp_path: Path, first_on_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOCO_TEST_DROPOUT", "0")  # which draws other numbers on another device
    interrupted(tmp_path, gpu=first_on_gpu)
    found = finished(tmp_path, gpu=not first_on_gpu)
    told = json.loads((tmp_path / "told.json").read_text())
    # What auto became at the start stays; its own device's choice would be another.
    assert told["precision"] == ("bf16" if first_on_gpu else "fp32")
    expected = finished(tmp_path / "whole", precision="fp32")
    for name in ("layers.0.weight", "layers.5.weight"):
        assert (found[name] - expected[name]).norm() < 0.1 * expected[name].norm(), name


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_every_precision_learns_the_same(
    tmp_path: Path, precision: str, channels_last: bool
) -> None:
    config = QUIET.derive(precision=precision, channels_last=channels_last)
    work(config, str(tmp_path / "found"), dropout=0.0)
    work(QUIET.derive(precision="fp32", cuda_graph=False), str(tmp_path / "plain"), dropout=0.0)
    found, expected = weights(tmp_path / "found"), weights(tmp_path / "plain")
    for name in ("layers.0.weight", "layers.5.weight"):
        assert (found[name] - expected[name]).norm() < 0.1 * expected[name].norm(), name


def test_auto_is_told(tmp_path: Path) -> None:
    work(QUIET, str(tmp_path))
    told = json.loads((tmp_path / "told.json").read_text())
    assert told == {
        "precision": "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16",
        "channels_last": True,
        "compiled": False,
        "device": torch.cuda.get_device_name(),
    }


def test_compiled(tmp_path: Path) -> None:
    work(QUIET.derive(precision="fp32", compile=True), str(tmp_path / "compiled"), dropout=0.0)
    work(QUIET.derive(precision="fp32"), str(tmp_path / "eager"), dropout=0.0)
    found, expected = weights(tmp_path / "compiled"), weights(tmp_path / "eager")
    for name in ("layers.0.weight", "layers.5.weight"):
        assert (found[name] - expected[name]).norm() < 0.05 * expected[name].norm(), name


@pytest.mark.parametrize("poison", [3, WARM_UP + 5], ids=["launched", "captured"])
def test_a_loss_that_is_no_number_stops_before_anything_of_it_is_saved(
    tmp_path: Path, poison: int
) -> None:
    with pytest.raises(NonFiniteLossError, match=f"at step {poison} of {STEPS}"):
        work(CONFIG, str(tmp_path), poison=poison)
    (kept,) = (tmp_path / "state/nonfinite").iterdir()
    assert torch.isnan(load_file(kept)["images"]).any()
    assert saved(tmp_path)[-1] <= poison
    for file in tmp_path.glob("state/checkpoints/*/state.safetensors"):
        assert all(
            torch.isfinite(t).all() for t in load_file(file).values() if t.is_floating_point()
        )


def test_fp16_survives_a_first_step_that_overflows(tmp_path: Path) -> None:
    """The scaler begins high and skips; momentum must be what it was, and not what memory held."""
    work(QUIET.derive(precision="fp16", lr=0.001), str(tmp_path), dropout=0.0)
    assert all(torch.isfinite(t).all() for t in weights(tmp_path).values())


class Slow(Model):
    """Takes about 50 ms of the GPU a step, none of the processor."""

    def forward(self, batch: Batch) -> Losses:
        torch.cuda._sleep(100_000_000)
        return super().forward(batch)


@pytest.mark.parametrize("batch_ms", [10, 200])
def test_the_wait_for_a_batch_is_what_is_left_when_the_step_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_ms: int
) -> None:
    """A batch that takes less time than a step costs none; a longer one what it takes longer."""
    waits = []
    monkeypatch.setattr(Signs, "stepped", lambda _, step, waited: waits.append(waited))
    monkeypatch.setattr("tests.training.learner.PAUSE", batch_ms / 1000)
    config = QUIET.derive(cuda_graph=False, log_every=1)
    learner = Learner(module=Slow(), batches=Batches(config), prepare=to_device)
    train(
        learner, config, total_steps=STEPS, state=f"{tmp_path}/state", identity={}, output=tmp_path
    )
    step_ms = _milliseconds(lambda: torch.cuda._sleep(100_000_000))
    lost_ms = 1000 * (waits[-1] - waits[4]) / (len(waits) - 5)
    assert abs(lost_ms - max(0, batch_ms - step_ms)) < 15


def _milliseconds(work: Callable[[], None]) -> float:
    torch.cuda.synchronize()
    started = time.monotonic()
    work()
    torch.cuda.synchronize()
    return 1000 * (time.monotonic() - started)


class Greedy(Model):
    def forward(self, batch: Any) -> Any:
        torch.empty(1 << 50, dtype=torch.uint8, device=batch["images"].device)
        return super().forward(batch)


def test_out_of_memory_says_what_to_lower(tmp_path: Path) -> None:
    learner = Learner(module=Greedy(), batches=Batches(CONFIG), prepare=to_device)
    output = tmp_path / "output"
    output.mkdir()
    with pytest.raises(ConfigError) as caught:
        train(learner, CONFIG, total_steps=3, state=f"{tmp_path}/state", identity={}, output=output)
    message = str(caught.value)
    assert "out of memory at step 0: 8 image(s) of batch_size 8" in message
    assert torch.cuda.get_device_name() in message
    assert "Lower batch_size" in message


def test_what_cannot_be_captured_is_refused_where_it_is_asked_for(tmp_path: Path) -> None:
    learner = Learner(module=Model(), batches=Batches(CONFIG), prepare=to_device)  # not uniform
    with pytest.raises(ConfigError, match="cuda_graph: only a GPU's steps"):
        train(
            learner,
            CONFIG.derive(cuda_graph=True),
            total_steps=3,
            state=f"{tmp_path}/state",
            identity={},
            output=tmp_path,
        )
