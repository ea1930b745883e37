"""GPU kernels against plain torch; `test_kernels.py` says where these run."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.vision.config import AugmentationConfig, moco_v1, moco_v2
from components.vision.device import adjust_colours, normalise
from components.vision.kernels import batch_norm as norms
from components.vision.kernels import colours as colour_kernels
from tests.pretrain.test_shuffling import batch_of

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CASES = {
    "residual": (8, 6, 5, 5, 2, True, True),
    "one group": (4, 64, 7, 7, 1, True, False),
    "channels beyond a tile": (8, 130, 4, 4, 4, False, True),
    "norm alone": (12, 40, 9, 3, 3, False, False),
    "rows beyond a part": (4, 16, 40, 40, 2, True, False),
    "a pixel an image": (16, 32, 1, 1, 2, True, True),
}
"""Images, channels, height, width, groups; whether a ReLU and a residual come along."""


def of(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator).to(DEVICE, dtype)
    return values.contiguous(memory_format=torch.channels_last)


def apart(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def pair(channels: int) -> tuple[nn.BatchNorm2d, nn.BatchNorm2d]:
    """Two equal layers."""
    generator = torch.Generator().manual_seed(3)
    norm, twin = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5, generator=generator)
        norm.bias.normal_(generator=generator)
        assert norm.running_mean is not None
        norm.running_mean.normal_(generator=generator)
    twin.load_state_dict(norm.state_dict())
    return norm.to(DEVICE), twin.to(DEVICE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_norm_of_groups_sum_and_relu(
    case: tuple[int, int, int, int, int, bool, bool], dtype: torch.dtype
) -> None:
    count, channels, height, width, groups, relu, has_residual = case
    shape = (count, channels, height, width)
    # Not around zero and of different spread, where sums of squares would lose their digits.
    spread = torch.arange(1, count + 1, device=DEVICE).view(-1, 1, 1, 1)
    maps = of(shape, 0, torch.float32) * spread + 3
    maps = maps.to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    residual = of(shape, 1, dtype).requires_grad_() if has_residual else None
    gradient = of(shape, 2, dtype)
    norm, twin = pair(channels)
    found = norms.batch_norm(maps, norm, groups=groups, momentum=0.05, residual=residual, relu=relu)
    found.backward(gradient)

    plain = maps.detach().float().requires_grad_()
    other = residual.detach().float().requires_grad_() if residual is not None else None
    expected = torch.cat(
        [
            F.batch_norm(
                part,
                twin.running_mean,
                twin.running_var,
                twin.weight,
                twin.bias,
                training=True,
                momentum=0.05,
            )
            for part in plain.chunk(groups)
        ]
    )
    expected = expected if other is None else expected + other
    expected = expected.relu() if relu else expected
    expected.backward(gradient.float())

    limit = 1e-5 if dtype == torch.float32 else 1e-2
    pairs = {
        "output": (found, expected),
        "input": (maps.grad, plain.grad),
        "weight": (norm.weight.grad, twin.weight.grad),
        "bias": (norm.bias.grad, twin.bias.grad),
        "mean": (norm.running_mean, twin.running_mean),
        "variance": (norm.running_var, twin.running_var),
    }
    if residual is not None and other is not None:
        pairs["residual"] = (residual.grad, other.grad)
    for name, (one, two) in pairs.items():
        assert one is not None
        assert two is not None
        assert apart(one, two) < limit, name
    assert norm.num_batches_tracked is not None
    assert int(norm.num_batches_tracked) == 1


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("has_residual", [False, True])
def test_norm_in_evaluation(has_residual: bool, relu: bool) -> None:
    maps = of((3, 40, 5, 4), 0, torch.float32) + 2
    residual = of((3, 40, 5, 4), 1, torch.float32) if has_residual else None
    norm, twin = pair(40)
    found = norms.batch_norm_in_evaluation(maps, norm, residual=residual, relu=relu)
    with torch.no_grad():
        expected = twin.eval()(maps)
        expected = expected if residual is None else expected + residual
        expected = expected.relu() if relu else expected
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_equal_input_gives_equal_bits() -> None:
    maps, gradient = of((8, 64, 12, 12), 0, torch.bfloat16), of((8, 64, 12, 12), 1, torch.bfloat16)
    ends = []
    for _ in range(2):
        norm, _ = pair(64)
        shown = maps.clone(memory_format=torch.preserve_format).requires_grad_()
        out = norms.batch_norm(shown, norm, groups=2, momentum=0.1, residual=None, relu=True)
        out.backward(gradient)
        ends.append([out, shown.grad, norm.weight.grad, norm.running_var])
    assert all(torch.equal(one, two) for one, two in zip(*ends, strict=True))


@pytest.mark.parametrize("config", [moco_v1(24), moco_v2(24)], ids=["v1", "v2"])
def test_colours(config: AugmentationConfig) -> None:
    batch = batch_of(config, 16).to(DEVICE)
    scale = torch.tensor([1 / (255 * std) for std in config.std], device=DEVICE)
    shift = torch.tensor(
        [-mean / std for mean, std in zip(config.mean, config.std, strict=True)], device=DEVICE
    )
    for view, colours in zip(batch.views, batch.colours, strict=True):
        found = colour_kernels.finish(view, colours, scale, shift)
        pixels = view.to(torch.float32, memory_format=torch.contiguous_format)
        expected = normalise(adjust_colours(pixels, colours), config.mean, config.std)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_views_without_colours_are_only_normalised() -> None:
    config = moco_v1(24)
    (view, _) = batch_of(config, 4).to(DEVICE).views
    scale, shift = torch.full((3,), 0.01, device=DEVICE), torch.full((3,), -1.0, device=DEVICE)
    found = colour_kernels.finish(view, None, scale, shift)
    torch.testing.assert_close(found, view.float() * 0.01 - 1)
