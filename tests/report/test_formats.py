import pytest

from components.report.formats import count, file_size, fixed, is_green, signed, with_spread


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (60.58, "60.6"), (-0.04, "0.0"), (-1.25, "−1.2"), (100, "100.0")],
)
def test_a_value_has_the_decimals_of_the_paper(value: float | None, text: str) -> None:
    assert fixed(value, 1) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.24, "+0.2"), (-0.26, "−0.3"), (0.04, "0.0"), (-0.04, "0.0")]
)
def test_a_difference_has_a_sign_unless_it_is_none(value: float, text: str) -> None:
    assert signed(value, 1) == text


@pytest.mark.parametrize(("gap", "green"), [(0.5, True), (24.9 - 24.4, True), (0.44, False)])
def test_a_gap_is_green_from_half_a_point_as_printed(gap: float, green: bool) -> None:
    assert is_green(gap, 1) is green


def test_a_single_trial_has_no_spread() -> None:
    assert with_spread(60.6, None, 1) == "60.6"
    assert with_spread(60.6, 0.21, 1) == "60.6 ± 0.2"


def test_counts_and_sizes_read_well() -> None:
    assert [count(1, "trial"), count(4597, "file")] == ["1 trial", "4,597 files"]
    assert [file_size(size) for size in (82, 6990, 94_000_000)] == ["82 B", "6.99 kB", "94 MB"]
