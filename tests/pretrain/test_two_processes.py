"""Virtual sub-batches on one device equal processes with a GPU each."""

import pytest
import torch

from components.training import distributed
from tests.pretrain.test_mechanisms import SMALL, views
from tests.pretrain.two_processes import contrast_once


@pytest.mark.parametrize("mechanism", ["moco", "end_to_end", "memory_bank"])
def test_two_processes_equal_two_virtual_sub_batches(mechanism: str) -> None:
    config = SMALL.derive(mechanism=mechanism, shuffle="shuffled", sub_batch=4)
    one = distributed.launch(1, contrast_once, config, views())
    two = distributed.launch(2, contrast_once, config, views())
    for key in ("logits", "gradient"):
        torch.testing.assert_close(
            torch.from_numpy(two[key]), torch.from_numpy(one[key]), rtol=1e-4, atol=1e-5
        )
    for name, expected in one["state"].items():  # the queue, or the bank
        found = torch.from_numpy(two["state"][name])
        torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-4, atol=1e-5)
