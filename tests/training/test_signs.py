"""Signs that a training goes wrong, and trainings that go well and give none."""

from pathlib import Path

import pytest
import structlog

from components.training.signs import Row, Signs
from tests.training.learner import CONFIG, work

Rows = list[Row]


def signs_of(rows: Rows, total: int) -> list[str]:
    """What is said while rows are added."""
    signs = Signs(total)
    with structlog.testing.capture_logs() as said:
        for count in range(1, len(rows) + 1):
            signs.recorded(rows[:count])
    return [str(event["event"]) for event in said if event["log_level"] == "warning"]


def losses(*values: float) -> Rows:
    """A history of a hundred steps, a row each, that goes through values evenly."""
    return [
        {"step": step + 1, "loss": values[min(step * len(values) // 100, len(values) - 1)]}
        for step in range(100)
    ]


def test_a_loss_that_falls_is_no_sign() -> None:
    assert signs_of(losses(9.0, 8.0, 5.0, 4.0, 3.9, 3.9, 3.9, 3.9), 100) == []


@pytest.mark.parametrize("values", [(4.6, 4.6), (4.6, 4.6, 4.59, 4.58), (4.6, 5.0, 7.0, 9.0)])
def test_a_loss_that_stands_or_grows_is_said_once(values: tuple[float, ...]) -> None:
    (words,) = signs_of(losses(*values), 100)
    assert words.startswith("the loss stands where it began")


def contrasts(*pairs: tuple[float, float]) -> Rows:
    rows: Rows = []
    for number, (pretext, votes) in enumerate(pairs, 1):
        step = 100 * number // len(pairs)
        rows += [
            {"step": step, "loss": 9.0 - number, "pretext_accuracy": pretext},
            {"step": step, "knn_accuracy": votes},
        ]
    return rows


def test_a_solved_task_while_votes_fall_is_the_sign_of_appendix_a9() -> None:
    (words,) = signs_of(contrasts((80, 30), (99.2, 34), (99.9, 31), (99.9, 28)), 100)
    assert "the keys' batch statistics give the answer away" in words
    assert signs_of(contrasts((80, 30), (90, 34), (95, 31)), 100) == []
    assert signs_of(contrasts((80, 30), (99.5, 34), (99.8, 36)), 100) == []


def rates(
    steps: list[tuple[float, int]], pauses: tuple[int, ...] = (), waiting: float = 0.0
) -> list[str]:
    """What is said of a training that stands at some step at some seconds.

    A share of its time is spent waiting for data.
    """
    clock = [0.0]
    signs = Signs(10**6, clock=lambda: clock[0])
    with structlog.testing.capture_logs() as said:
        for number, (seconds, step) in enumerate(steps):
            clock[0] = seconds
            signs.stepped(step, waiting * seconds)
            if number in pauses:
                signs.paused()
    return [str(event["event"]) for event in said]


def test_a_rate_that_falls_by_half_is_said_each_time_that_it_does() -> None:
    fast = [(61.0 * k, 1000 * k) for k in range(4)]
    slow = [(183.0 + 61 * k, 3000 + 400 * k) for k in range(1, 4)]
    again = [(366.0 + 61 * k, 4200 + 1000 * k) for k in range(1, 3)]
    assert rates(fast) == []
    assert rates([*fast, *slow]) == ["the rate fell by half"]
    tail = [(488.0 + 61 * k, 6200 + 400 * k) for k in range(1, 3)]
    assert rates([*fast, *slow, *again, *tail]) == ["the rate fell by half"] * 2


def test_an_evaluation_is_no_slow_training() -> None:
    steps = [(0.0, 0), (61.0, 1000), (122.0, 2000), (500.0, 2010), (561.0, 3010)]
    assert rates(steps, pauses=(2,)) == []
    assert rates(steps) == ["the rate fell by half"]


def test_a_training_that_waits_for_data_is_told_once_as_long_as_it_waits() -> None:
    steps = [(61.0 * k, 1000 * k) for k in range(5)]
    assert rates(steps, waiting=0.2) == []
    (words,) = rates(steps, waiting=0.4)
    assert words.startswith("steps wait for data: raise loader.workers")


def test_the_loop_counts_what_its_steps_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.training.learner.PAUSE", 0.02)
    monkeypatch.setattr("components.training.signs.WINDOW", 0.05)
    with structlog.testing.capture_logs() as said:
        work(CONFIG.derive(checkpoint_seconds=1000), str(tmp_path))
    warnings = [event["event"] for event in said if event["log_level"] == "warning"]
    assert "steps wait for data: raise loader.workers, or bring the data nearer" in warnings
