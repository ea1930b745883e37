"""How long trainings are whose length follows from the number of their images."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.classification.inaturalist import fine_tuning
from components.detection import cityscapes, coco
from components.segmentation import voc
from components.training.config import SupervisedConfig

COCO = coco.mask_rcnn_fpn().derive(length_of=118_287)
FCN = voc().derive(length_of=10_582)
FINE_TUNING = fine_tuning().derive(length_of=437_513)


def steps(config: Any, images: int) -> float:
    epochs = getattr(config, "epochs", None)
    return float(epochs * images / config.batch_size if epochs else config.iterations)


@pytest.mark.parametrize(
    "config", [COCO, FCN, FINE_TUNING], ids=lambda config: type(config).__name__
)
@given(images=st.integers(2_000, 2_000_000))
def test_steps_grow_with_the_root_of_the_images(config: SupervisedConfig, images: int) -> None:
    assert config.length_of is not None
    fitted = config.fit(images)
    papers = steps(config, config.length_of)
    ratio = (images / config.length_of) ** 0.5
    assert steps(fitted, images) == pytest.approx(papers * ratio, rel=0.02)
    assert (fitted.length_of, fitted.counted) == (None, images)
    assert fitted.batch_size == config.batch_size
    assert fitted.fit(7) == fitted


def test_of_as_many_images_as_the_papers_it_is_the_papers_length() -> None:
    for config in (COCO, FCN, FINE_TUNING):
        fitted = config.fit(config.length_of or 0)
        kept = {"length_of": None, "counted": None, "evaluate_every": 1}
        before, after = ({**c.model_dump(), **kept} for c in (config, fitted))
        assert after == before


def test_the_papers_own_lengths_are_near_the_rule() -> None:
    """COCO's 1× gives Cityscapes' images nearly what Table 6 does."""
    papers = cityscapes.mask_rcnn()
    images = papers.iterations * papers.batch_size
    ours = COCO.fit(2_975)
    assert ours.iterations * ours.batch_size == pytest.approx(images, rel=0.25)


def test_a_share_of_the_labels_fills_a_batch_and_all_of_them_stay_as_configured() -> None:
    config = fine_tuning()
    assert config.fit(100) is config
    fitted = config.derive(labels=10.0).fit(100)
    assert (fitted.batch_size, fitted.epochs) == (64, config.epochs)


@pytest.mark.parametrize(("images", "batch"), [(256, 256), (255, 128), (100, 64), (3, 2), (1, 1)])
def test_a_batch_has_no_more_images_than_there_are(images: int, batch: int) -> None:
    assert FINE_TUNING.fit(images).batch_size == batch


def test_a_warm_up_takes_a_tenth_of_a_short_training_at_most() -> None:
    assert COCO.schedule.warmup == 1000
    fitted = COCO.fit(100)
    assert fitted.iterations == 2617
    assert fitted.schedule.warmup == 261
    assert fitted.schedule.drops == COCO.schedule.drops


def test_few_images_are_evaluated_twenty_times_at_most() -> None:
    fitted = FINE_TUNING.fit(1000)
    assert fitted.epochs == 2092
    assert fitted.epochs / fitted.evaluate_every < 21


@pytest.mark.parametrize(
    "config", [COCO, FCN, FINE_TUNING], ids=lambda config: type(config).__name__
)
def test_hours_are_known_once_the_images_are_counted(config: SupervisedConfig) -> None:
    assert config.gpu_hours() is None
    counted = config.derive(counted=(config.length_of or 0) // 4).gpu_hours()
    whole = config.derive(counted=config.length_of).gpu_hours()
    assert counted is not None
    assert counted == pytest.approx((whole or 0) / 2, rel=0.01)
