"""Checkpoints in a real object store, and what happens when the store is not there."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from components.core.errors import ExitCode, StoreError
from components.core.store import open_store
from components.pretrain import PretrainConfig
from components.training.checkpoint import KEPT, Checkpointer

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from([torch.int64, torch.float32, torch.bfloat16, torch.uint8]).map(
        lambda dtype: torch.arange(6).view(2, 3).to(dtype)
    )
)
states = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=8,
)


def equal(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return type(one) is type(other) and one == other


@settings(max_examples=40, deadline=None)
@given(state=st.dictionaries(st.text(max_size=3), states, max_size=4))
def test_any_state_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, state: dict[str, object]
) -> None:
    checkpointer = Checkpointer(open_store(str(tmp_path_factory.mktemp("state"))), {"a": 1})
    checkpointer.finish(7, state)
    assert equal(list(checkpointer.load() or ()), [7, state])


def test_a_copy_is_saved_that_later_steps_do_not_change(tmp_path: Path) -> None:
    checkpointer = Checkpointer(open_store(str(tmp_path)), {})
    weights = torch.zeros(1000)
    checkpointer.save(1, {"weights": weights})
    weights.fill_(1)
    checkpointer.wait()
    found = checkpointer.load()
    assert found is not None
    assert not found[1]["weights"].any()


def test_a_bucket_keeps_two_and_gives_back_the_newest(bucket_url: str) -> None:
    checkpointer = Checkpointer(open_store(bucket_url), {})
    for step in range(1, 5):
        checkpointer.finish(step, {"weights": torch.full((4,), float(step))})
    found = checkpointer.load()
    assert found is not None
    assert found[0] == 4
    assert found[1]["weights"].tolist() == [4.0] * 4
    manifests = [e.key for e in open_store(bucket_url).list() if e.key.endswith("manifest.json")]
    assert len(manifests) == KEPT


def test_what_a_kill_in_the_middle_of_a_save_left_is_removed(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write("checkpoints/0000000003/state.safetensors", b"half")
    (tmp_path / "checkpoints/0000000004").mkdir()
    (tmp_path / "checkpoints/0000000004/.00ff.moco-part").write_bytes(b"ha")
    checkpointer = Checkpointer(store, {})
    assert checkpointer.load() is None
    for step in (5, 6, 7):
        checkpointer.finish(step, {})
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "0000000006",
        "0000000007",
    ]


def test_training_does_not_wait_for_a_lost_store_but_the_last_save_fails(
    bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOCO_S3_ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    monkeypatch.setenv("MOCO_S3_RETRY_SECONDS", "1")
    checkpointer = Checkpointer(open_store(bucket_url), {})
    assert checkpointer.save(1, {"weights": torch.zeros(4)})
    assert checkpointer.saving  # the store is still being tried
    checkpointer.wait()
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:9"):
        checkpointer.finish(2, {"weights": torch.zeros(4)})


def test_a_store_that_refuses_ends_a_stage_before_torch_is_imported(
    bucket_url: str, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    canary = "canary-secret-4711"
    argv = [sys.executable, "-X", "importtime", "-m", "components.pretrain"]
    argv += ["--config", PretrainConfig().miniature().to_json(), "--state", f"{bucket_url}/state"]
    argv += ["--mount.data", str(tmp_path / "data"), f"--output.encoder={tmp_path}/encoder"]
    argv += [f"--output.metrics={tmp_path}/metrics"]
    start = time.monotonic()
    result = subprocess.run(
        argv,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "AWS_SECRET_ACCESS_KEY": canary},
    )
    assert result.returncode == ExitCode.LOST_STORE, result.stderr[-2000:]
    assert time.monotonic() - start < 60  # far from the store's patience of 120
    assert os.environ["AWS_ACCESS_KEY_ID"] in result.stderr
    assert canary not in result.stdout + result.stderr
    assert "| torch" not in result.stderr
