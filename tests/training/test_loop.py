import hashlib
import json
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from components.core.errors import ConfigError, ExitCode, NonFiniteLossError
from components.core.store import open_store
from components.training import distributed
from components.training.checkpoint import Checkpointer
from tests.programs import Program, run
from tests.training.kills import STEPS
from tests.training.learner import CONFIG, work

CHECKPOINTS = "state/checkpoints"
pytestmark = pytest.mark.slow

SECONDS = 240  # for what takes a few, but for a machine that is busy with other tests


def program(folder: Path, processes: int = 1, *more: str) -> Program:
    return Program(["-m", "tests.training.learner", str(folder), str(processes), *more])


def weights_hash(folder: Path) -> str:
    return hashlib.sha256((folder / "weights-0.safetensors").read_bytes()).hexdigest()


def saved_steps(folder: Path) -> list[int]:
    return sorted(int(p.parent.name) for p in (folder / CHECKPOINTS).glob("*/manifest.json"))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    work(CONFIG, str(folder))
    return folder


def test_the_history_has_every_epoch_once(uninterrupted: Path) -> None:
    rows = [json.loads(line) for line in (uninterrupted / "output/history.jsonl").open()]
    assert [row["step"] for row in rows if "weight_norm" in row] == [7, 14, 21, 28]
    assert [row["step"] for row in rows if "loss" in row][-1] == 28
    assert list((uninterrupted / "output/tensorboard").iterdir())


def test_evaluations_leave_no_trace_in_the_training(uninterrupted: Path, tmp_path: Path) -> None:
    work(CONFIG, str(tmp_path), evaluate_every=3)
    assert weights_hash(tmp_path) == weights_hash(uninterrupted)


def test_two_checkpoints_are_kept(uninterrupted: Path) -> None:
    assert len(saved_steps(uninterrupted)) == 2
    assert saved_steps(uninterrupted)[-1] == 28


def test_killed_fifty_times_at_any_moment_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    """Each step saves and purges, so that the kills fall into both as well."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    work(CONFIG, str(whole), STEPS)
    result = run(["-m", "tests.training.kills", str(parts), "50", "7"])
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) >= 40
    assert weights_hash(parts) == weights_hash(whole)
    history = (parts / "output/history.jsonl").read_text()
    assert history == (whole / "output/history.jsonl").read_text()


def test_a_corrupt_checkpoint_gives_way_to_the_one_before(
    uninterrupted: Path, tmp_path: Path
) -> None:
    work(CONFIG, str(tmp_path), steps=28)
    newest = tmp_path / CHECKPOINTS / f"{saved_steps(tmp_path)[-1]:010d}" / "state.safetensors"
    content = bytearray(newest.read_bytes())
    content[-5] ^= 1
    newest.write_bytes(content)
    (tmp_path / "weights-0.safetensors").unlink()
    work(CONFIG, str(tmp_path), steps=28)
    assert weights_hash(tmp_path) == weights_hash(uninterrupted)


def test_another_config_is_refused_naming_what_differs(
    uninterrupted: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = CONFIG.derive(lr=0.1, momentum=0.8, log_every=5)
    with pytest.raises(ConfigError) as caught:
        work(other, str(uninterrupted))
    assert "config.lr: was 0.05, now 0.1" in str(caught.value)
    assert "config.momentum" in str(caught.value)
    assert "log_every" not in str(caught.value)  # does not change the result
    monkeypatch.setenv("MOCO_FORCE_RESUME", "1")
    work(other, str(uninterrupted))


def test_a_nan_stops_before_the_update_and_keeps_the_batch(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError, match="step 9 of 28"):
        work(CONFIG, str(tmp_path), poison=9)
    (kept,) = (tmp_path / "state/nonfinite").iterdir()
    assert torch.isnan(load_file(kept)["images"]).any()
    for step in saved_steps(tmp_path):
        assert step <= 9
        tensors = load_file(tmp_path / CHECKPOINTS / f"{step:010d}" / "state.safetensors")
        assert all(torch.isfinite(t).all() for t in tensors.values() if t.is_floating_point())


def test_sigterm_saves_within_a_step_and_says_so_by_its_code(
    uninterrupted: Path, tmp_path: Path
) -> None:
    process = program(tmp_path)
    while not saved_steps(tmp_path):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == ExitCode.INTERRUPTED, errors
    assert "the checkpoint is safe" in errors
    again = program(tmp_path)
    again.communicate(timeout=SECONDS)
    assert again.returncode == 0
    assert weights_hash(tmp_path) == weights_hash(uninterrupted)


def test_two_ranks_learn_what_one_learns_where_nothing_is_per_rank(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    distributed.launch(1, work, CONFIG, str(one), dropout=0.0, norm=False)
    distributed.launch(2, work, CONFIG, str(two), dropout=0.0, norm=False)
    expected = load_file(one / "weights-0.safetensors")
    for rank in (0, 1):
        found = load_file(two / f"weights-{rank}.safetensors")
        for name in ("layers.0.weight", "layers.5.weight", "layers.5.bias"):
            torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)


def test_two_ranks_resume_bit_exact_each_with_its_own_randomness(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    distributed.launch(2, work, CONFIG, str(whole))
    process = program(parts, 2)
    while not saved_steps(parts):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == ExitCode.INTERRUPTED, errors
    distributed.launch(2, work, CONFIG, str(parts))
    assert weights_hash(parts) == weights_hash(whole)


def test_a_rank_that_fails_gives_its_error_to_the_parent(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError, match="step 3"):
        distributed.launch(2, work, CONFIG, str(tmp_path), poison=3)
    process = program(tmp_path / "program", 2, "3")
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == ExitCode.NON_FINITE, errors


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes of two pictures."""
    for name in ("apple/1", "apple/2", "pear/1", "pear/2"):
        path = tmp_path / "data" / "train" / f"{name}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "data"


def test_a_resume_on_changed_data_is_refused_saying_what_changed(
    data: Path, tmp_path: Path
) -> None:
    work(CONFIG, str(tmp_path), data=str(data))
    shutil.copytree(data, tmp_path / "copy")
    work(CONFIG, str(tmp_path), data=str(tmp_path / "copy"))  # the same data in another place
    (data / "train" / "grape").mkdir()
    (data / "train" / "grape" / "1.JPEG").write_text("x")

    with pytest.raises(ConfigError) as refused:
        work(CONFIG, str(tmp_path), data=str(data))

    assert "data: had 4 pictures, has 5\n" in str(refused.value)
    assert "data: train/grape is new: 1 picture(s)\n" in str(refused.value)
    assert "MOCO_FORCE_RESUME=1" in str(refused.value)


def test_what_a_forced_resume_passed_over_is_told_for_good(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    work(CONFIG, str(tmp_path), steps=14)
    monkeypatch.setenv("MOCO_FORCE_RESUME", "1")
    work(CONFIG.derive(lr=0.1), str(tmp_path), steps=21)
    monkeypatch.delenv("MOCO_FORCE_RESUME")
    work(CONFIG.derive(lr=0.1), str(tmp_path), steps=28)

    told = json.loads((tmp_path / "told.json").read_text())
    assert told["forced_resume"] == ["step 14: config.lr: was 0.05, now 0.1"]


def test_a_forced_resume_without_momentum_forgets_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    work(CONFIG, str(tmp_path), steps=14)
    monkeypatch.setenv("MOCO_FORCE_RESUME", "1")

    work(CONFIG.derive(momentum=0), str(tmp_path), steps=21)
    work(CONFIG, str(tmp_path), steps=28)

    assert saved_steps(tmp_path)[-1] == 28


def test_a_checkpoint_beyond_the_end_is_refused_though_forced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    work(CONFIG, str(tmp_path), steps=14)
    monkeypatch.setenv("MOCO_FORCE_RESUME", "1")

    with pytest.raises(ConfigError, match="of step 14, but this training ends at step 7"):
        work(CONFIG.derive(lr=0.1), str(tmp_path), steps=7)


def test_a_checkpoint_of_another_model_is_refused_naming_its_tensors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    work(CONFIG, str(tmp_path), steps=7)
    monkeypatch.setenv("MOCO_FORCE_RESUME", "1")

    with pytest.raises(ConfigError, match=r"layers\.1\.bias: 8 in the checkpoint, nothing here"):
        work(CONFIG.derive(lr=0.1), str(tmp_path), norm=False)


def test_a_forced_resume_with_more_processes_gives_each_a_random_state_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    work(CONFIG, str(tmp_path), steps=14)
    monkeypatch.setenv("MOCO_FORCE_RESUME", "1")
    process = program(tmp_path, 2)
    _, errors = process.communicate(timeout=SECONDS)

    assert process.returncode == 0, errors
    assert "further ones begin with new random states" in errors
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["forced_resume"] == ["step 14: processes: was 1, now 2"]
    found = Checkpointer(open_store(str(tmp_path / "state")), {}).load(force=True)
    assert found is not None
    one, two = (state["cpu"] for state in found[1]["rng"])
    assert not torch.equal(one, two)


def test_a_forced_resume_with_fewer_processes_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    distributed.launch(2, work, CONFIG, str(tmp_path), steps=7)
    monkeypatch.setenv("MOCO_FORCE_RESUME", "1")
    work(CONFIG, str(tmp_path), steps=14)

    told = json.loads((tmp_path / "told.json").read_text())
    assert told["forced_resume"] == ["step 7: processes: was 2, now 1"]
