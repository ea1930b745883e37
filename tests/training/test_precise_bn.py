"""Statistics computed anew are those of all batches put together."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from components.training import distributed
from components.training.precise_bn import recompute_statistics


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        normal: Tensor = self.norm(self.conv(images))
        return normal

    def statistics(self) -> tuple[Tensor, Tensor]:
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None
        assert variance is not None
        return mean.clone(), variance.clone()


def make_batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    # Of other sizes, scales and means: an average of averages would be wrong.
    return [
        torch.randn(count, 3, side, side, generator=generator) * scale + 3 * scale
        for count, side, scale in ((2, 8, 1.0), (5, 6, 4.0), (1, 12, 0.5), (4, 9, 2.0))
    ]


def pooled(net: Net, batches: list[Tensor]) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        values = torch.cat([net.conv(batch).transpose(0, 1).flatten(1) for batch in batches], 1)
    return values.mean(1), values.var(1)


def test_statistics_equal_those_of_the_pooled_batches() -> None:
    net = Net()
    for _ in range(3):
        net(torch.randn(8, 3, 8, 8))
    assert recompute_statistics(net, make_batches(), net) == 1
    mean, variance = pooled(net, make_batches())
    torch.testing.assert_close(net.statistics(), (mean, variance))
    net(make_batches()[0])
    assert not torch.equal(net.statistics()[0], mean)  # they move on as before


def test_frozen_layers_keep_their_statistics_and_cost_no_batch() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4))
    shown: list[Tensor] = []
    assert recompute_statistics(net, make_batches(), shown.append) == 0
    assert not shown


def share(folder: Path) -> None:
    net = Net()
    own = make_batches()[distributed.rank() :: 2]
    recompute_statistics(net, own, net)
    torch.save(net.norm.state_dict(), folder / f"{distributed.rank()}.pt")


@pytest.mark.slow
def test_ranks_with_other_batches_come_to_the_same_statistics(tmp_path: Path) -> None:
    distributed.launch(2, share, tmp_path)
    states = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    mean, variance = pooled(Net(), make_batches())
    for state in states:
        torch.testing.assert_close(state["running_mean"], mean)
        torch.testing.assert_close(state["running_var"], variance)
