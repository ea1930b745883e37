"""Writes numbers the way the paper prints them."""

MINUS = "−"
GREEN_GAP = 0.5
"""Gaps of at least this many points are green in the paper's tables."""


def fixed(value: float | None, decimals: int) -> str:
    """Write a value, or a dash where there is none."""
    if value is None:
        return "–"
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        return text.removeprefix("-")
    return text.replace("-", MINUS)


def signed(value: float, decimals: int) -> str:
    """Write a difference with its sign; one that rounds to zero has none."""
    text = fixed(value, decimals)
    return text if text.startswith(MINUS) or float(text) == 0 else f"+{text}"


def with_spread(value: float | None, spread: float | None, decimals: int) -> str:
    """Write a value and, where known, its standard deviation."""
    return fixed(value, decimals) + ("" if spread is None else f" ± {fixed(spread, decimals)}")


def is_green(gap: float, decimals: int) -> bool:
    """Say whether a gap, as printed, is one that the paper prints in green."""
    return round(gap, decimals) >= GREEN_GAP


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun: `1 trial`, `1,200 files`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def file_size(size: int) -> str:
    """Write a size in the unit that fits."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.0f} TB"
