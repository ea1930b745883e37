"""What a machine can do of what a config asks, told before anything is read."""

import pytest
import torch

from components.core.errors import ConfigError
from components.training import distributed
from components.training.config import TrainingConfig
from components.training.machine import Arithmetic, check_machine, choose_arithmetic

CONFIG = TrainingConfig()


@pytest.fixture
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Two GPUs of a kind without bf16, as torch would tell of them."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla V100-SXM2-16GB")
    return monkeypatch


@pytest.mark.usefixtures("_no_gpu")
def test_on_a_processor_auto_is_single_precision() -> None:
    assert choose_arithmetic(CONFIG) == Arithmetic("fp32", channels_last=False, compiled=False)
    assert Arithmetic("fp32", False, False).told()["device"] == "CPU"


def test_on_an_old_gpu_auto_is_half_precision_and_on_a_new_one_bf16(
    gpu: pytest.MonkeyPatch,
) -> None:
    assert choose_arithmetic(CONFIG) == Arithmetic("fp16", channels_last=True, compiled=False)
    gpu.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    assert choose_arithmetic(CONFIG).precision == "bf16"


def test_what_the_config_says_is_taken(gpu: pytest.MonkeyPatch) -> None:
    said = CONFIG.derive(precision="fp32", channels_last=False, compile=True)
    assert choose_arithmetic(said) == Arithmetic("fp32", channels_last=False, compiled=True)


@pytest.mark.usefixtures("gpu")
def test_bf16_is_refused_where_there_is_none_naming_what_is() -> None:
    with pytest.raises(ConfigError) as caught:
        check_machine(CONFIG.derive(precision="bf16"))
    message = str(caught.value)
    assert "precision: bf16" in message
    assert "Tesla V100-SXM2-16GB (compute capability 7.0) has no bf16" in message
    assert "fp32 and fp16 are, and auto takes fp16" in message


@pytest.mark.usefixtures("_no_gpu")
def test_a_continued_training_keeps_what_it_began_with() -> None:
    begun = Arithmetic("bf16", channels_last=True, compiled=False).told()
    assert choose_arithmetic(CONFIG, begun) == Arithmetic("bf16", True, False)
    # What is said goes before it: the checkpoint of another config is refused elsewhere.
    assert choose_arithmetic(CONFIG.derive(precision="fp32"), begun).precision == "fp32"


@pytest.mark.usefixtures("gpu")
def test_a_training_in_bf16_is_not_continued_on_a_gpu_without() -> None:
    begun = Arithmetic("bf16", channels_last=True, compiled=False).told()
    with pytest.raises(ConfigError, match=r"the training began in bf16, and Tesla V100.*has no"):
        choose_arithmetic(CONFIG, begun)


@pytest.mark.usefixtures("gpu")
def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = CONFIG.derive(processes=4)
    with pytest.raises(ConfigError, match=r"processes: 4 wanted, but only 2 GPU\(s\).*2 or less"):
        check_machine(wanted)
    monkeypatch.setenv(distributed.SHARE_GPU, "1")
    check_machine(wanted)


@pytest.mark.usefixtures("_no_gpu")
@pytest.mark.parametrize(
    ("batch_size", "processes", "share", "nearest"),
    [
        (256, 3, 1, "255 and 258"),
        (100, 8, 1, "96 and 104"),
        (2, 3, 1, ": 3"),
        (240, 2, 32, "192 and 256"),
    ],
)
def test_a_batch_that_cannot_be_shared_names_the_nearest_that_can(
    batch_size: int, processes: int, share: int, nearest: str
) -> None:
    config = CONFIG.derive(batch_size=batch_size, processes=processes)
    with pytest.raises(ConfigError, match=f"batch_size: {batch_size} cannot be shared.*{nearest}"):
        check_machine(config, share)
    check_machine(config.derive(batch_size=processes * share * 4), share)
