"""Times a call of ours beside one of a peer's, and tells the ratio."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

Clock = Callable[[], float]
"""`time.process_time` where all runs in one thread: what else the machine does counts less."""


def compare(
    name: str,
    ours: Callable[[], object],
    peer: Callable[[], object],
    goal: float,
    *,
    turns: int = 5,
    clock: Clock = time.perf_counter,
) -> dict[str, Any]:
    """Time both in turn, so that a machine whose speed drifts is fair to both."""
    ours(), peer()
    return ratio(name, [(seconds(ours, clock), seconds(peer, clock)) for _ in range(turns)], goal)


def seconds(call: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Return how long a call takes."""
    start = clock()
    call()
    return clock() - start


def ratio(name: str, pairs: Sequence[tuple[float, float]], goal: float) -> dict[str, Any]:
    """Return the row of calls that were timed in turn: of ours and of the peer's, seconds."""
    ratios = [peer / ours for ours, peer in pairs]
    return {
        "name": name,
        "ratio": round(statistics.median(ratios), 3),
        "goal": goal,
        "detail": f"{statistics.median(ours for ours, _ in pairs):.3f} s a call; "
        f"ratios {min(ratios):.2f} to {max(ratios):.2f}",
    }


def skipped(name: str, why: str) -> dict[str, Any]:
    """Return the row of a comparison that was not made."""
    return {"name": name, "ratio": "skipped", "goal": None, "detail": why}
