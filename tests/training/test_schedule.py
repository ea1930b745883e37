import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.core.config import parse_config
from components.core.errors import ConfigError
from components.training.config import Schedule, TrainingConfig
from components.training.schedule import lr_factor


def factors(schedule: Schedule, total: int, per_epoch: int) -> list[float]:
    return [lr_factor(schedule, step, total, per_epoch) for step in range(total)]


def of_torch(scheduler: torch.optim.lr_scheduler.LRScheduler, count: int) -> list[float]:
    seen = []
    for _ in range(count):
        seen.append(float(scheduler.get_last_lr()[0]))
        scheduler.optimizer.step()
        scheduler.step()
    return seen


def optimizer() -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def test_drops_equal_torchs_multi_step() -> None:
    ours = factors(Schedule(drops=(0.6, 0.8)), 200, 1)
    peer = of_torch(torch.optim.lr_scheduler.MultiStepLR(optimizer(), [120, 160]), 200)
    assert ours == pytest.approx(peer)


def test_drops_every_so_many_steps_equal_torchs_and_wait_for_no_epoch() -> None:
    ours = factors(Schedule(kind="every", every=7, gamma=0.9), 100, 30)
    peer = of_torch(torch.optim.lr_scheduler.StepLR(optimizer(), 7, 0.9), 100)
    assert ours == pytest.approx(peer)


@pytest.mark.parametrize("fields", [{"kind": "every"}, {"every": 5}])
def test_steps_between_drops_are_of_their_own_kind_alone(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="every: iterations between drops"):
        parse_config(Schedule, fields)


def test_cosine_by_step_equals_torchs() -> None:
    ours = factors(Schedule(kind="cosine", by_epoch=False), 50, 10)
    peer = of_torch(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer(), 50), 50)
    assert ours == pytest.approx(peer)


def test_by_epoch_changes_only_between_epochs() -> None:
    seen = factors(Schedule(kind="cosine"), 60, 10)
    for start in range(0, 60, 10):
        assert len(set(seen[start : start + 10])) == 1
    assert len(set(seen)) == 6


def test_the_voc_drops_fall_on_the_stated_iterations() -> None:
    schedule = Schedule(drops=(18_000 / 24_000, 22_000 / 24_000), by_epoch=False)
    for step, expected in ((17_999, 1.0), (18_000, 0.1), (21_999, 0.1), (22_000, 0.01)):
        assert lr_factor(schedule, step, 24_000, 1_000) == pytest.approx(expected)


def test_warm_up_grows_linearly_to_the_full_rate() -> None:
    seen = factors(Schedule(warmup=100, warmup_factor=0.001, by_epoch=False), 200, 1)
    assert seen[0] == pytest.approx(0.001)
    assert seen[50] == pytest.approx(0.001 * 0.5 + 0.5)
    assert seen[100:] == [1.0] * 100


@given(drops=st.lists(st.floats(0.01, 0.99), max_size=5).map(sorted), step=st.integers(0, 999))
def test_a_step_schedule_never_rises(drops: list[float], step: int) -> None:
    schedule = Schedule(drops=tuple(drops), by_epoch=False)
    assert lr_factor(schedule, step + 1, 1000, 10) <= lr_factor(schedule, step, 1000, 10)


def test_drops_out_of_order_are_refused() -> None:
    with pytest.raises(ConfigError, match="growing fractions"):
        parse_config(Schedule, {"drops": [0.8, 0.6]})


def test_the_rate_scales_linearly_with_the_batch() -> None:
    assert TrainingConfig(lr=0.03, lr_batch=256, batch_size=1024).scaled_lr == pytest.approx(0.12)
