"""Durations and sizes as people read them."""


def duration(seconds: float | None) -> str:
    """Write a duration: `4.2 s`, `3 min 05 s`, `2 h 10 min`; `?` if it is not known."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def size(count: float | None) -> str:
    """Write a number of bytes: `3.1 MB`; `?` if it is not known."""
    if count is None:
        return "?"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def number(count: int, noun: str) -> str:
    """Write a count with its noun: `1 step`, `3 steps`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def became(step: str, state: str) -> str:
    """Say what became of a step: `train failed`, `train was skipped`."""
    return f"{step} failed" if state == "failed" else f"{step} was {state}"
