"""Our views against torchvision's, operation by operation and as distributions."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image, ImageFilter
from scipy.stats import ks_2samp
from torchvision import transforms

from components.core.config import parse_config
from components.core.errors import ConfigError
from components.vision.batch import Colours, encode_colours
from components.vision.colour import adjust_colours, blur
from components.vision.config import (
    AugmentationConfig,
    EvaluationConfig,
    fine_tuning,
    moco_v1,
    moco_v2,
)
from components.vision.cropping import centre_crop, crop_and_resize
from components.vision.decoding import Pixels
from components.vision.device import adjust_colours as adjust_colours_on_device
from components.vision.device import blur as blur_on_device
from components.vision.views import Crop, Operation, View, draw_view, view_generator

SAMPLES = 400
SIGNIFICANCE = 1e-3  # the seeds are fixed, so a test that passes goes on passing

REFERENCE: dict[Operation, Callable[[Image.Image, float], Image.Image]] = {
    "brightness": TF.adjust_brightness,
    "contrast": TF.adjust_contrast,
    "saturation": TF.adjust_saturation,
    "hue": TF.adjust_hue,
    "grayscale": lambda image, _: TF.rgb_to_grayscale(image, 3),
}
FACTORS: list[tuple[Operation, float]] = [
    ("brightness", 0.6),
    ("brightness", 1.4),
    ("contrast", 0.6),
    ("contrast", 1.4),
    ("saturation", 0.6),
    ("saturation", 1.4),
    ("hue", -0.4),
    ("hue", -0.05),
    ("hue", 0.1),
    ("hue", 0.4),
    ("grayscale", 0.0),
]


def on_device(
    pixels: Pixels, colours: tuple[tuple[Operation, float], ...] = (), sigma: float = 0.0
) -> npt.NDArray[np.float32]:
    images = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None].contiguous()
    encoded = encode_colours([View(Crop(0, 0, 1, 1), flip=False, colours=colours, blur=sigma)])
    images = blur_on_device(adjust_colours_on_device(images, encoded), encoded.blur)
    result: npt.NDArray[np.float32] = images[0].permute(1, 2, 0).numpy()
    return result


def differences(ours: npt.NDArray[Any], reference: Image.Image) -> npt.NDArray[np.float64]:
    return np.abs(ours.astype(np.float64) - np.asarray(reference).astype(np.float64))


@pytest.mark.parametrize("crop", [Crop(20, 30, 350, 300), Crop(5, 5, 150, 180), Crop(0, 0, 48, 48)])
@pytest.mark.parametrize("flip", [False, True])
def test_resized_crops_equal_pillows(photographs: list[Pixels], crop: Crop, flip: bool) -> None:
    image = TF.resized_crop(Image.fromarray(photographs[0]), *crop, size=[224, 224])
    image = TF.hflip(image) if flip else image

    ours = crop_and_resize(photographs[0], crop, 224, flip=flip)

    assert ours.flags.c_contiguous
    assert differences(ours, image).max() <= 1
    assert differences(ours, image).mean() < 0.02


@pytest.mark.parametrize("turned", [False, True])
def test_the_evaluation_crop_equals_torchvisions(photographs: list[Pixels], turned: bool) -> None:
    pixels = photographs[1].swapaxes(0, 1) if turned else photographs[1]
    reference = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])

    ours = centre_crop(pixels, 256, 224)

    assert differences(ours, reference(Image.fromarray(pixels))).max() <= 1


@pytest.mark.parametrize(("operation", "factor"), FACTORS)
def test_each_colour_operation_equals_pillows(
    photographs: list[Pixels], operation: Operation, factor: float
) -> None:
    for pixels in photographs:
        reference = REFERENCE[operation](Image.fromarray(pixels), factor)
        for ours in (
            adjust_colours(pixels, [(operation, factor)]),
            on_device(pixels, ((operation, factor),)),
        ):
            assert differences(ours, reference).mean() < 0.7  # grey levels
            # Pillow rounds the hue to a 256th of the circle, which our device path does not.
            tolerance = 8 if operation == "hue" else 1.5
            assert np.percentile(differences(ours, reference), 99.9) <= tolerance


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_the_blur_equals_pillows(photographs: list[Pixels], sigma: float) -> None:
    for pixels in photographs:
        reference = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma))
        for ours in (blur(pixels, sigma), on_device(pixels, sigma=sigma)):
            assert differences(ours, reference).mean() < 1.0


def test_operations_apply_in_their_order_and_each_view_has_its_own(patches: list[Pixels]) -> None:
    generator = np.random.default_rng(0)
    views = [draw_view(moco_v2(), 64, 64, generator) for _ in patches]
    images = torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).float().contiguous()
    colours: Colours = encode_colours(views)

    together = blur_on_device(adjust_colours_on_device(images, colours), colours.blur)

    assert len({view.colours for view in views}) > 20
    for result, pixels, view in zip(together, patches, views, strict=True):
        expected = adjust_colours(pixels, view.colours)
        expected = blur(expected, view.blur) if view.blur else expected
        difference = np.abs(result.permute(1, 2, 0).numpy() - expected)
        assert difference.mean() < 1.5


def test_crops_are_distributed_like_torchvisions() -> None:
    torch.manual_seed(0)
    image = torch.empty(3, 375, 500)
    theirs = np.array(
        [
            transforms.RandomResizedCrop.get_params(image, [0.2, 1.0], [3 / 4, 4 / 3])
            for _ in range(SAMPLES)
        ]
    )
    ours = np.array(
        [draw_view(moco_v1(), 375, 500, view_generator(0, 0, i, 0)).crop for i in range(SAMPLES)]
    )
    for crops, same in zip(_crop_quantities(ours), _crop_quantities(theirs), strict=True):
        assert ks_2samp(crops, same).pvalue > SIGNIFICANCE


def _crop_quantities(crops: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Return tops, lefts, areas and aspects of crops."""
    top, left, height, width = crops.T
    return [top, left, height * width, height / width]


def test_a_crop_that_never_fits_is_the_largest_one_of_allowed_aspect_in_the_centre() -> None:
    config = AugmentationConfig(crop_area=(1.0, 1.0))
    crop = draw_view(config, 10, 100, np.random.default_rng(0)).crop
    assert crop == Crop(top=0, left=43, height=10, width=13)


RELEASED = {
    "v1": (
        moco_v1(48),
        [
            transforms.RandomGrayscale(p=0.2),
            transforms.ColorJitter(0.4, 0.4, 0.4, 0.4),
            transforms.RandomHorizontalFlip(),
        ],
    ),
    "v2": (
        moco_v2(48),
        [
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.RandomApply(
                [
                    transforms.Lambda(
                        lambda x: x.filter(
                            ImageFilter.GaussianBlur(float(torch.empty(1).uniform_(0.1, 2.0)))
                        )
                    )
                ],
                p=0.5,
            ),
            transforms.RandomHorizontalFlip(),
        ],
    ),
}


def statistics(image: npt.NDArray[Any]) -> list[float]:
    """Channel means and deviations, saturation, sharpness, and left-right tilt."""
    image = image.astype(np.float64)
    return [
        *image.mean((0, 1)),
        *image.std((0, 1)),
        float((image.max(2) - image.min(2)).mean()),
        float(np.abs(np.diff(image, axis=1)).mean()),
        float(image[:, :24].mean() - image[:, 24:].mean()),
    ]


@pytest.mark.parametrize("version", RELEASED)
@pytest.mark.parametrize("where", ["loader", "device"])
def test_views_are_distributed_like_the_released_ones(
    photographs: list[Pixels], version: str, where: str
) -> None:
    config, released = RELEASED[version]
    reference = transforms.Compose([transforms.RandomResizedCrop(48, scale=(0.2, 1.0)), *released])
    torch.manual_seed(1)
    ours, theirs = [], []
    small = [pixels[:426:3, :639:3].copy() for pixels in photographs]
    for index in range(SAMPLES):
        pixels = small[index % 2]
        view = draw_view(config, 142, 213, view_generator(1, 0, index, 0))
        made = crop_and_resize(pixels, view.crop, 48, flip=view.flip)
        if where == "loader":
            made = adjust_colours(made, view.colours)
            made = blur(made, view.blur) if view.blur else made
            ours.append(statistics(made))
        else:
            ours.append(statistics(on_device(made, view.colours, view.blur)))
        theirs.append(statistics(np.asarray(reference(Image.fromarray(pixels)))))

    for mine, released_one in zip(np.array(ours).T, np.array(theirs).T, strict=True):
        assert ks_2samp(mine, released_one).pvalue > SIGNIFICANCE


def test_the_jitter_has_every_order_and_its_factors_are_uniform() -> None:
    views = [draw_view(moco_v1(), 64, 64, view_generator(0, 0, i, 0)) for i in range(2400)]
    jitters = [[c for c in view.colours if c[0] != "grayscale"] for view in views]

    orders = Counter(tuple(name for name, _ in jitter) for jitter in jitters)
    assert len(orders) == 24
    assert min(orders.values()) > 60
    for name, low, high in (("brightness", 0.6, 1.4), ("hue", -0.4, 0.4)):
        drawn = [factor for jitter in jitters for key, factor in jitter if key == name]
        assert ks_2samp(drawn, np.linspace(low, high, 2400)).pvalue > SIGNIFICANCE
    grays = sum(view.colours[0][0] == "grayscale" for view in views)
    assert abs(grays / 2400 - 0.2) < 0.03


def test_a_view_depends_on_seed_epoch_index_and_number_alone() -> None:
    def draw(seed: int, epoch: int, index: int, number: int) -> View:
        generator = view_generator(seed, epoch, index, number)
        return draw_view(moco_v2(), 375, 500, generator)

    assert draw(0, 1, 2, 0) == draw(0, 1, 2, 0)
    assert len({draw(0, 1, 2, 0).crop, draw(1, 1, 2, 0).crop, draw(0, 2, 2, 0).crop}) == 3
    assert draw(0, 1, 2, 0) != draw(0, 1, 2, 1)


def test_fine_tuning_changes_no_colours() -> None:
    view = draw_view(fine_tuning(), 375, 500, np.random.default_rng(0))
    assert view.colours == ()
    assert view.blur == 0


@pytest.mark.parametrize(
    "change",
    [{"crop_area": [0.9, 0.2]}, {"crop_area": [0.5, 1.5]}, {"hue": 0.6}, {"flip_probability": 2}],
)
def test_impossible_augmentations_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        parse_config(AugmentationConfig, change)


def test_an_evaluation_crop_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not fit"):
        parse_config(EvaluationConfig, {"resize": 200})
