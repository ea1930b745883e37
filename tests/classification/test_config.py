"""The configs say what the paper says."""

import subprocess
import sys

import pytest

from components.classification import imagenet, inaturalist
from components.classification.config import ClassificationConfig
from components.classification.linear import LinearConfig
from components.core.stage import load_stage
from components.training.schedule import lr_factor

STAGES = ("classification.imagenet", "classification.inaturalist", "classification.linear")
CONFIGS = (
    imagenet.fine_tuning(),
    imagenet.from_scratch(),
    inaturalist.fine_tuning(),
    inaturalist.from_scratch(),
    LinearConfig(),
)


def rates(config: ClassificationConfig) -> dict[int, float]:
    """The epochs from which the learning rate is another, and the rate."""
    steps = 5004
    found: dict[int, float] = {}
    for epoch in range(config.epochs):
        factor = lr_factor(config.schedule, epoch * steps, config.epochs * steps, steps)
        rate = round(config.scaled_lr * factor, 9)
        if not found or rate != list(found.values())[-1]:
            found[epoch] = rate
    return found


@pytest.mark.parametrize("config", CONFIGS)
def test_all_train_100_epochs_of_batches_of_256_with_momentum(config: ClassificationConfig) -> None:
    assert (config.epochs, config.batch_size, config.momentum) == (100, 256, 0.9)
    assert (config.augmentation.crop, config.augmentation.crop_area) == (224, (0.08, 1.0))
    assert config.augmentation.flip_probability == 0.5
    assert config.augmentation.grayscale_probability == config.augmentation.jitter_probability == 0
    assert (config.evaluation.resize, config.evaluation.crop) == (256, 224)


def test_imagenet_fine_tunes_at_0_03_and_starts_from_scratch_at_0_1() -> None:
    assert rates(imagenet.fine_tuning()) == {0: 0.03, 30: 0.003, 60: 0.0003, 90: 0.00003}
    assert rates(imagenet.from_scratch()) == {0: 0.1, 30: 0.01, 60: 0.001, 90: 0.0001}
    assert imagenet.fine_tuning().weight_decay == imagenet.from_scratch().weight_decay == 1e-4


def test_inaturalist_drops_at_70_and_90_percent() -> None:
    assert rates(inaturalist.fine_tuning()) == {0: 0.025, 70: 0.0025, 90: 0.00025}
    assert rates(inaturalist.from_scratch()) == {0: 0.1, 70: 0.01, 90: 0.001}
    assert inaturalist.fine_tuning().weight_decay == 1e-4


def test_linear_classification_learns_at_30_without_weight_decay() -> None:
    assert rates(LinearConfig()) == {0: 30, 60: 3, 80: 0.3}
    assert LinearConfig().weight_decay == 0
    assert LinearConfig.frozen


@pytest.mark.parametrize("config", CONFIGS)
def test_the_miniature_keeps_the_papers_rate_and_schedule(config: ClassificationConfig) -> None:
    small = config.miniature()
    assert type(small) is type(config)
    assert (small.lr, small.schedule) == (config.lr, config.schedule)
    assert (small.momentum, small.weight_decay) == (config.momentum, config.weight_decay)
    assert len(rates(small)) >= 2  # it is long enough to drop at least once
    assert small.derive(seed=3).seed == 3


def test_gpu_hours_follow_from_images_epochs_and_rate() -> None:
    assert imagenet.fine_tuning().gpu_hours() == pytest.approx(107.8, abs=0.1)
    assert inaturalist.fine_tuning().gpu_hours() == pytest.approx(36.8, abs=0.1)
    assert LinearConfig().gpu_hours() == pytest.approx(35.6, abs=0.1)
    assert LinearConfig(epochs=50).gpu_hours() == pytest.approx(17.8, abs=0.1)


def test_the_declarations_import_no_torch() -> None:
    modules = ", ".join(f"components.{name}" for name in STAGES)
    program = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", STAGES)
def test_the_help_names_every_field_of_the_config(name: str) -> None:
    stage = load_stage(name)
    text = stage.help()
    for field in stage.config.model_fields:
        assert f"  {field}" in text
    assert "Sec. 4.1" in text or "Appendix A." in text
