"""Rates of GPUs, which plans are estimated by."""

import pytest

from components.classification import linear
from components.core.gpus import MEASURED, V100S, Gpus
from components.detection import coco, lvis
from components.pretrain import PretrainConfig
from components.segmentation import voc

H200 = Gpus("NVIDIA H200", 8)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA H200 NVL", "H200"),
        ("Tesla V100-SXM2-16GB", None),
        ("NVIDIA GH200 480GB", None),
        (None, None),
    ],
)
def test_a_card_is_known_by_a_whole_word_of_its_name(name: str | None, known: str | None) -> None:
    assert Gpus(name).known == known


def test_the_rate_is_that_of_the_measured_share_nearest_below() -> None:
    shares = {rate.images: rate.per_second for rate in MEASURED["H200"]["pretrain"]}
    assert sorted(shares) == [32, 256]
    for count, share in ((1, 256), (2, 32), (8, 32), (64, 32)):
        assert Gpus("NVIDIA H200", count).per_second("pretrain", 256) == shares[share]
    assert V100S.per_second("pretrain", 256) is None


def test_a_training_takes_its_images_over_the_rate() -> None:
    pretraining = PretrainConfig()
    assert pretraining.gpu_hours() == pytest.approx(200 * 1_281_167 / 168 / 3600)
    assert pretraining.gpu_hours(H200) == pytest.approx(200 * 1_281_167 / 3064 / 3600)
    assert linear.LinearConfig().gpu_hours(H200) == pytest.approx(100 * 1_281_167 / 23165 / 3600)
    assert voc().gpu_hours(H200) == pytest.approx(30_000 * 16 / 495 / 3600)


def test_a_detector_takes_as_much_more_than_mask_rcnn_as_was_published() -> None:
    mask_rcnn = coco.mask_rcnn_fpn().gpu_hours(H200)
    assert mask_rcnn == pytest.approx(90_000 * 16 / 64.3 / 3600)
    tuned = lvis.mask_rcnn("tuned").gpu_hours(H200)
    assert tuned == pytest.approx(0.292 / 0.261 * 90_000 * 16 / 64.3 / 3600)
