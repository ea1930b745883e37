"""What a machine offers to steps."""

from pathlib import Path

import pytest

from components.core.stage import Resources
from pipelines.backends.local.machine import Machine, this_machine

TRAINING = Resources(gpus=8)


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tool's listing of a machine with two GPUs, one of them in parts."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\n"
        "echo 'GPU 0: NVIDIA H200 (UUID: GPU-a)'\n"
        "echo 'GPU 1: NVIDIA H200 (UUID: GPU-b)'\n"
        "echo '  MIG 1g.18gb     Device  0: (UUID: MIG-c)'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("nvidia_smi")
def test_gpus_are_found_without_torch() -> None:
    machine = this_machine()

    assert machine.gpus == ("0", "1")
    assert machine.gpu_name == "NVIDIA H200"
    assert machine.jobs == 3  # one for each GPU, and one beside


@pytest.mark.usefixtures("nvidia_smi")
@pytest.mark.parametrize(
    ("visible", "gpus"), [("", ()), ("-1", ()), ("1", ("1",)), ("GPU-a,GPU-b", ("GPU-a", "GPU-b"))]
)
def test_the_gpus_are_those_that_the_environment_leaves(
    visible: str, gpus: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    assert this_machine().gpus == gpus


def test_without_gpus_the_cores_decide() -> None:
    machine = Machine(cores=16, gpus=(), jobs=4)

    assert machine.threads == 4
    assert machine.gpus_for(TRAINING, "full") == 0
    assert machine.environment(())["CUDA_VISIBLE_DEVICES"] == ""
    assert Machine(cores=2, gpus=(), jobs=8).threads == 1


def test_a_step_gets_what_it_wants_what_there_is_and_one_in_miniature() -> None:
    machine = Machine(cores=16, gpus=tuple("01234567"), jobs=9)

    assert machine.gpus_for(TRAINING, "full") == 8
    assert machine.gpus_for(TRAINING, "digits") == 1
    assert machine.gpus_for(Resources(), "digits") == 0
    assert Machine(16, ("0",), 2).gpus_for(TRAINING, "full") == 1
