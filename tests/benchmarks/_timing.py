"""Times a call of ours beside one of a peer's."""

import statistics
import time
from collections.abc import Callable
from typing import Any


def compare(
    name: str, ours: Callable[[], object], peer: Callable[[], object], goal: float
) -> dict[str, Any]:
    """Time both in turn, so that a machine whose speed drifts is fair to both."""
    ratios, seconds = [], []
    ours(), peer()
    for _ in range(5):
        times = []
        for call in (ours, peer):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        ratios.append(times[1] / times[0])
        seconds.append(times[0])
    return {
        "name": name,
        "ratio": round(statistics.median(ratios), 3),
        "goal": goal,
        "detail": f"{statistics.median(seconds):.3f} s a call; "
        f"ratios {min(ratios):.2f} to {max(ratios):.2f}",
    }
