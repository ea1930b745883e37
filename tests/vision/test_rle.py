import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from components.vision import rle

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=40))


@given(MASKS)
def test_a_mask_survives_its_runs_and_their_text(mask: npt.NDArray[np.bool_]) -> None:
    runs = rle.encode(mask)
    assert runs.sum() == mask.size
    np.testing.assert_array_equal(rle.decode(runs, *mask.shape), mask)
    np.testing.assert_array_equal(rle.uncompress(rle.compress(runs)), runs)


@given(
    arrays(np.float64, (8, 2), elements=st.floats(-20, 60).map(lambda x: round(x, 2))),
    MASKS,
)
def test_masks_are_those_of_pycocotools(
    polygon: npt.NDArray[np.float64], mask: npt.NDArray[np.bool_]
) -> None:
    official = pytest.importorskip("pycocotools.mask")
    encoded = official.frPyObjects([polygon.ravel().tolist()], 30, 45)
    np.testing.assert_array_equal(
        rle.fill([polygon], 30, 45), official.decode(encoded)[..., 0].astype(bool)
    )
    text = official.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert rle.compress(rle.encode(mask)) == text


def test_a_polygon_covers_the_pixels_whose_middle_is_inside() -> None:
    square = np.array([(1.0, 2.0), (4.0, 2.0), (4.0, 7.0), (1.0, 7.0)])
    expected = np.zeros((10, 8), np.bool_)
    expected[2:7, 1:4] = True
    np.testing.assert_array_equal(rle.fill([square], 10, 8), expected)
    outside = square + np.array([5.0, 6.0])
    assert rle.fill([outside], 10, 8).sum() == 2 * 2
    two = rle.fill([square, outside], 10, 8)
    np.testing.assert_array_equal(two, expected | rle.fill([outside], 10, 8))


@pytest.mark.parametrize("text", ["P", "\x00"])
def test_text_that_is_no_run_lengths_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="run lengths"):
        rle.uncompress(text)


def test_runs_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="runs of 12 pixels for a mask of 5×4"):
        rle.decode(np.array([12], np.uint32), 4, 5)
