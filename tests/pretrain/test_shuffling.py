"""Images are dealt anew between sub-batches and processes, each travelling once, as bytes."""

import numpy as np
import pytest
import torch

from components.pretrain.shuffling import deal, deal_view, draw_order
from components.training import distributed
from components.vision.batch import Batch, encode_colours
from components.vision.config import AugmentationConfig, moco_v1, moco_v2
from components.vision.device import finish_views
from components.vision.views import draw_view
from tests.pretrain.two_processes import deal_and_count, deal_batch

IMAGES = 8
SIDE = 12


def batch_of(config: AugmentationConfig, count: int = IMAGES) -> Batch:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (2, count, SIDE, SIDE, 3), dtype=np.uint8)
    views = [[draw_view(config, SIDE, SIDE, generator) for _ in range(count)] for _ in range(2)]
    return Batch(
        views=tuple(torch.from_numpy(view).permute(0, 3, 1, 2) for view in pixels),
        colours=tuple(encode_colours(view) for view in views),
        labels=torch.zeros(count, dtype=torch.long),
        indices=torch.arange(count),
    )


def test_every_image_is_dealt_once_and_a_seed_deals_alike() -> None:
    images = torch.arange(16.0).view(16, 1).repeat(1, 3)
    order = draw_order(16, seed=3)
    dealt = deal(images, order)
    assert not torch.equal(dealt, images)
    assert torch.equal(dealt[torch.argsort(order)], images)
    assert torch.equal(order, draw_order(16, seed=3))
    assert not torch.equal(order, draw_order(16, seed=4))


@pytest.mark.parametrize("config", [moco_v1(SIDE), moco_v2(SIDE)], ids=["v1", "v2"])
def test_a_dealt_view_is_the_same_pictures_in_another_order(config: AugmentationConfig) -> None:
    batch = batch_of(config)
    order = draw_order(IMAGES, seed=1)
    query, key = finish_views(batch, config)
    same_query, dealt_key = finish_views(deal_view(batch, 1, order, torch.device("cpu")), config)
    assert torch.equal(same_query, query)
    torch.testing.assert_close(dealt_key, key[order])


def test_between_two_processes_half_of_a_share_travels_as_bytes() -> None:
    """Of `world` processes each sends (world - 1) / world of its share, on average."""
    images = torch.randint(0, 256, (64, 3, 5, 7), dtype=torch.uint8)
    order = draw_order(64, seed=2)
    found = distributed.launch(2, deal_and_count, images, order)
    assert torch.equal(found["dealt"], images[order])
    assert torch.equal(found["gathered"], found["dealt"])  # what gathering all would have given
    owners = order // 32
    travelled = int((owners[:32] == 1).sum())  # rank 0 gets as many as it gives
    assert found["sent_bytes"] == travelled * 3 * 5 * 7
    assert 10 <= travelled <= 22  # of 32


@pytest.mark.parametrize("config", [moco_v1(SIDE), moco_v2(SIDE)], ids=["v1", "v2"])
def test_two_processes_deal_colours_with_the_pictures(config: AugmentationConfig) -> None:
    batch = batch_of(config)
    order = draw_order(IMAGES, seed=5)
    _, expected = finish_views(deal_view(batch, 1, order, torch.device("cpu")), config)
    found = distributed.launch(2, deal_batch, config, batch, order)
    torch.testing.assert_close(found, expected)
