"""Batch norm over processes equals batch norm over their images in one."""

import torch
from torch import Tensor, nn

from components.training import distributed
from components.training.sync_batch_norm import synchronise

SHARES = (5, 2)  # images of each process: they need not be equal


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    first = nn.Conv2d(3, 8, 3, stride=2, bias=False)
    layers = nn.Sequential(
        first, nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4, momentum=None)
    )
    return layers.double()


def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    # Far from zero, where sums of squares would lose the variance.
    return torch.randn(sum(SHARES), 3, 9, 7, generator=generator, dtype=torch.float64) + 100


def pass_through(module: nn.Module, share: Tensor) -> dict[str, Tensor]:
    """Return outputs and gradients of a loss to which every image adds its own part."""
    share = share.requires_grad_()
    outputs = module(share)
    (outputs.sin() * outputs).sum().backward()
    assert share.grad is not None
    named = {f"grad of {name}": p.grad for name, p in module.named_parameters()}
    return {
        "outputs": outputs.detach(),
        "input": share.grad,
        **dict(module.named_buffers()),
        **named,
    }


def work() -> dict[str, Tensor]:
    """Pass this rank's share; put the shares together again."""
    module = synchronise(layers())
    found = pass_through(module, images().split(SHARES)[distributed.rank()])
    for name, tensor in found.items():
        if name in ("outputs", "input"):
            found[name] = distributed.gather_varying(tensor)
        elif name.startswith("grad of"):
            found[name] = distributed.gather(tensor[None]).sum(0)
        else:
            assert (distributed.gather(tensor[None]) == tensor).all(), f"{name} differs by rank"
    return found


def test_two_processes_equal_one_with_all_images() -> None:
    expected = pass_through(layers(), images())
    found = distributed.launch(2, work)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, msg=name)


def test_alone_and_in_evaluation_it_is_plain_batch_norm() -> None:
    plain, synchronised = layers(), synchronise(layers())
    assert list(plain.state_dict()) == list(synchronised.state_dict())
    for training in (True, False):
        plain.train(training)
        synchronised.train(training)
        assert torch.equal(plain(images()), synchronised(images()))
