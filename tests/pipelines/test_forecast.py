"""What a plan says of a run before anything is spent."""

from pathlib import Path

import pytest
import torch
import torchvision

from components.classification.linear import LinearConfig
from components.core.gpus import Gpus
from components.vision.architectures import relative_cost
from pipelines.backends.local.forecast import Forecast, forecast, wall_seconds
from pipelines.backends.local.machine import Machine
from pipelines.backends.local.reuse import ReuseIndex
from pipelines.backends.local.sources import Sources
from pipelines.plan import Existing, Plan
from pipelines.recipes import Options, build_plan, load_recipe

EIGHT_H200S = Machine(96, tuple("01234567"), 9, "NVIDIA H200")


def planned(name: str, machine: Machine, runs: Path) -> tuple[Plan, dict[str, Forecast]]:
    plan = build_plan(load_recipe(name), Options(scale="full"))
    return plan, forecast(plan, Sources({}, {}), machine, ReuseIndex(runs))


def test_a_training_is_estimated_by_the_measured_rate_of_the_card(tmp_path: Path) -> None:
    plan, forecasts = planned("pretrain", EIGHT_H200S, tmp_path)

    estimate = forecasts["pretrain_moco_in1m"].estimate
    seconds = 200 * 1_281_167 / 3064 / 8  # a share of 32 of the batch of 256
    assert estimate.seconds == pytest.approx(seconds)
    assert estimate.gpu_hours == pytest.approx(seconds * 8 / 3600)
    assert estimate.basis == "of H200s, as measured on one"
    # What comes after it is of unknown length, and needs no GPU.
    assert wall_seconds(plan, forecasts, EIGHT_H200S) == pytest.approx(seconds, rel=0.01)


@pytest.mark.parametrize("name", ["Tesla V100-SXM2-32GB", "NVIDIA L4", None])
def test_of_another_card_the_published_rate_is_taken(name: str | None, tmp_path: Path) -> None:
    machine = Machine(96, tuple("01234567"), 9, name)
    _, forecasts = planned("pretrain", machine, tmp_path)

    estimate = forecasts["pretrain_moco_in1m"].estimate
    assert estimate.gpu_hours == pytest.approx(200 * 1_281_167 / 168 / 3600)
    assert estimate.basis == "of V100s, as published"


def test_trainings_that_each_take_all_gpus_run_one_after_another(tmp_path: Path) -> None:
    plan, forecasts = planned("shuffling_bn", EIGHT_H200S, tmp_path)

    arms = [forecasts[f"pretrain_{arm}_0"].estimate.seconds for arm in ("shuffled", "plain")]
    assert None not in arms
    assert wall_seconds(plan, forecasts, EIGHT_H200S) == pytest.approx(sum(filter(None, arms)))


def test_trainings_of_another_encoder_take_as_much_longer_as_it_multiplies_more(
    tmp_path: Path,
) -> None:
    checkpoint = tmp_path / "small.pth"
    torch.save(torchvision.models.resnet18().state_dict(), checkpoint)
    own = Existing(str(checkpoint), "Model")
    options = Options(rows=("moco_rx50", "moco_in1m"), own={"small": own})
    plan = build_plan(load_recipe("linear"), options)
    sources = Sources({}, {own.uri: checkpoint})

    forecasts = forecast(plan, sources, EIGHT_H200S, ReuseIndex(tmp_path))

    hours = {
        row: forecasts[f"linear_{row}_0"].estimate.gpu_hours
        for row in ("moco_in1m", "small", "moco_rx50")
    }
    usual = LinearConfig().gpu_hours(Gpus("NVIDIA H200", 8))
    assert hours["moco_in1m"] == pytest.approx(usual)
    assert hours["small"] == pytest.approx(1.814 / 4.089 * (usual or 0), rel=0.01)
    larger = relative_cost("resnext50_32x8d") * (usual or 0)
    assert hours["moco_rx50"] == pytest.approx(larger)
