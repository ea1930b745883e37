"""Several processes: two that share a GPU, over gloo; and NCCL in a world of one.

NCCL takes one process for each GPU, so what several GPUs do is tried in two halves: the exchanges
and who gets what, between two processes over gloo; NCCL, with DDP inside of a CUDA graph, alone.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from components.core.errors import ConfigError
from components.training import distributed
from tests.gpu.test_stages import PRETRAIN, losses, run
from tests.gpu.test_step import finished
from tests.pretrain.test_mechanisms import SMALL, views
from tests.pretrain.two_processes import contrast_once


@pytest.mark.parametrize("mechanism", ["moco", "end_to_end", "memory_bank"])
def test_two_processes_equal_two_virtual_sub_batches(
    mechanism: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(distributed.SHARE_GPU, "1")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # to be put back
    config = SMALL.derive(mechanism=mechanism, shuffle="shuffled", sub_batch=4)
    one = distributed.launch(1, contrast_once, config, views(), device="cuda")
    two = distributed.launch(2, contrast_once, config, views(), device="cuda")
    for key in ("logits", "gradient"):
        torch.testing.assert_close(
            torch.from_numpy(two[key]), torch.from_numpy(one[key]), rtol=1e-3, atol=1e-3
        )


def test_the_stage_in_two_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, imagenet_folder: Path
) -> None:
    monkeypatch.setenv(distributed.SHARE_GPU, "1")
    run("pretrain", tmp_path, imagenet_folder, None, **PRETRAIN, processes=2)
    assert len(losses(tmp_path)) == 4


def test_more_processes_than_gpus_are_refused(tmp_path: Path, imagenet_folder: Path) -> None:
    count = torch.cuda.device_count() + 1
    with pytest.raises(ConfigError, match=f"processes: {count} wanted, but only"):
        run("pretrain", tmp_path, imagenet_folder, None, processes=count, batch_size=32 * count)


def test_nccl_in_a_world_of_one_and_in_a_graph(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29531",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.nccl", str(tmp_path / "nccl")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = load_file(tmp_path / "nccl/weights-0.safetensors")
    alone = finished(tmp_path / "alone", precision="fp32", deterministic=True)
    for name, expected in alone.items():
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-5)
    assert "a step of pre-training was captured" in done.stdout
