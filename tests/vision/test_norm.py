"""Batch norm of sub-batches, and norm, sum and ReLU as one."""

import copy

import pytest
import torch
from torch import nn

from components.vision.norm import SubBatchNorm2d, _normalise_side_by_side, normalise


def sub_batches(channels: int, sub_batch: int) -> SubBatchNorm2d:
    norm = SubBatchNorm2d(channels)
    norm.sub_batch = sub_batch
    return norm


def test_sub_batches_are_normalised_as_if_alone() -> None:
    torch.manual_seed(0)
    images = torch.randn(12, 6, 5, 5) * torch.arange(1, 13).view(12, 1, 1, 1)
    plain = nn.BatchNorm2d(6)
    expected = torch.cat([copy.deepcopy(plain)(part) for part in images.split(4)])
    torch.testing.assert_close(sub_batches(6, 4)(images), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_side_by_side_they_equal_those_in_turn(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    images = torch.randn(12, 6, 5, 5, dtype=dtype) * torch.arange(1, 13).view(12, 1, 1, 1)
    weights = torch.randn(12, 6, 5, 5, dtype=dtype)
    found = []
    for side_by_side in (False, True):
        norm = sub_batches(6, 4).to(dtype)
        nn.init.uniform_(norm.weight, generator=torch.Generator().manual_seed(1))
        shown = images.clone().requires_grad_()
        out = _normalise_side_by_side(norm, shown, 3) if side_by_side else norm(shown)
        (out * weights).sum().backward()
        found.append([out, shown.grad, norm.weight.grad, norm.running_mean, norm.running_var])
    torch.testing.assert_close(found[1], found[0])


def test_running_statistics_forget_as_fast_as_plain_batch_norm() -> None:
    torch.manual_seed(0)
    norm, plain = sub_batches(3, 2), nn.BatchNorm2d(3)
    images = torch.randn(2, 3, 4, 4).repeat(4, 1, 1, 1)  # every sub-batch has equal statistics
    norm(images)
    plain(images[:2])
    torch.testing.assert_close(norm.running_mean, plain.running_mean)
    torch.testing.assert_close(norm.running_var, plain.running_var)
    norm.eval()
    torch.testing.assert_close(norm(images), plain.eval()(images))


def test_a_batch_that_sub_batches_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 6 cannot be split into sub-batches of 4"):
        sub_batches(3, 4)(torch.randn(6, 3, 4, 4))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_norm_sum_and_relu_are_what_they_are_one_by_one(residual: bool, relu: bool) -> None:
    torch.manual_seed(0)
    maps, other = torch.randn(2, 3, 4, 5, 5).unbind()
    norm = nn.BatchNorm2d(4)
    expected = copy.deepcopy(norm)(maps)
    if residual:
        expected = expected + other
    if relu:
        expected = expected.relu()
    found = normalise(norm, maps, residual=other if residual else None, relu=relu)
    assert torch.equal(found, expected)
