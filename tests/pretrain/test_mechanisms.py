"""Truths of Sec. 3 and Appendix A.9, with real tensors."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from components.core.config import parse_config
from components.core.errors import ConfigError
from components.pretrain import KnnConfig, PretrainConfig, ig1b, moco_v2_config
from components.pretrain.mechanisms import (
    EndToEnd,
    MemoryBank,
    MomentumContrast,
    build_mechanism,
    keys_of_all,
)
from components.pretrain.shuffling import draw_order
from components.training.schedule import lr_factor

SMALL = PretrainConfig(
    architecture="resnet_digits",
    dim=16,
    negatives=24,
    batch_size=8,
    sub_batch=4,
    key_momentum=0.9,
)


def views(seed: int = 0, count: int = 8) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "query": torch.randn(count, 3, 24, 24, generator=generator),
        "key": torch.randn(count, 3, 24, 24, generator=generator),
        "index": torch.randperm(50, generator=generator)[:count],
        "drawn": torch.randint(50, (24,), generator=generator),
    }


def dealt(batch: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Deal the key views of one process anew, as the stage does."""
    order = draw_order(len(batch["key"]), seed)
    return {**batch, "key": batch["key"][order], "places": torch.argsort(order)}


def moco(**changes: object) -> MomentumContrast:
    torch.manual_seed(0)
    mechanism = build_mechanism(SMALL.derive(**changes), 50)
    assert isinstance(mechanism, MomentumContrast)
    return mechanism.train()


def test_the_encoders_start_equal_and_the_queue_holds_unit_vectors() -> None:
    mechanism = moco()
    keys = mechanism.key.state_dict()
    for name, value in mechanism.query.state_dict().items():
        assert torch.equal(value, keys[name])
    torch.testing.assert_close(mechanism.queue.norm(dim=1), torch.ones(24))


def test_the_queue_is_first_in_first_out() -> None:
    mechanism = moco()
    seen = []
    for step in range(5):
        keys = torch.full((8, 16), float(step))
        mechanism.enqueue(keys)
        seen.append(keys)
    # 24 places hold three batches of 8: the fourth replaced the first, the fifth the second.
    assert mechanism.queue[:, 0].tolist() == [3.0] * 8 + [4.0] * 8 + [2.0] * 8


def test_the_key_encoder_moves_by_equation_2_in_parameters_only() -> None:
    mechanism = moco()
    with torch.no_grad():
        for parameter in mechanism.query.parameters():
            parameter.add_(torch.randn_like(parameter))
        for name, buffer in mechanism.query.named_buffers():
            if "running" in name:
                buffer.add_(1.0)
    before = copy.deepcopy(mechanism.key)
    mechanism.follow()
    query = dict(mechanism.query.named_parameters())
    for name, parameter in mechanism.key.named_parameters():
        expected = 0.9 * dict(before.named_parameters())[name] + 0.1 * query[name]
        torch.testing.assert_close(parameter, expected)
    buffers = dict(before.named_buffers())
    for name, buffer in mechanism.key.named_buffers():
        assert torch.equal(buffer, buffers[name]), name


def test_the_loss_is_equation_1() -> None:
    mechanism = moco(shuffle="none", temperature=0.2)
    batch = views()
    twin = copy.deepcopy(mechanism)
    loss, figures = mechanism(batch)

    queries = twin.query(batch["query"])
    twin.follow()
    keys = twin.key(batch["key"])
    direct = []
    for query, key in zip(queries, keys, strict=True):
        scores = torch.cat([key[None], twin.queue]) @ query / 0.2
        direct.append(-(scores[0] - torch.logsumexp(scores, 0)))
    torch.testing.assert_close(loss, torch.stack(direct).mean())
    torch.testing.assert_close(mechanism.queue[:8], keys)
    assert 0 <= float(figures["pretext_accuracy"]) <= 100


def test_no_gradient_reaches_keys_or_queue() -> None:
    mechanism = moco()
    loss, _ = mechanism(views())
    loss.backward()
    assert all(parameter.grad is not None for parameter in mechanism.query.parameters())
    assert all(parameter.grad is None for parameter in mechanism.key.parameters())


def test_end_to_end_learns_through_both_encoders() -> None:
    torch.manual_seed(0)
    mechanism = EndToEnd(SMALL.derive(mechanism="end_to_end", shuffle="plain")).train()
    batch = views()
    twin = copy.deepcopy(mechanism)
    logits, targets = mechanism.contrast(batch)
    assert logits.shape == (8, 8)
    assert targets.tolist() == list(range(8))
    F.cross_entropy(logits, targets).backward()
    assert all(parameter.grad is not None for parameter in mechanism.key.parameters())
    queries = twin.query(batch["query"])
    keys = twin.key(batch["key"])
    torch.testing.assert_close(logits, queries @ keys.T / SMALL.temperature)


def test_the_memory_bank_moves_only_the_entries_of_the_batch() -> None:
    torch.manual_seed(0)
    mechanism = MemoryBank(SMALL.derive(mechanism="memory_bank"), samples=50).train()
    batch = views()
    before = mechanism.bank.clone()
    twin = copy.deepcopy(mechanism)
    loss, _ = mechanism(batch)
    loss.backward()
    queries = twin.query(batch["query"])
    moved = F.normalize(0.5 * before[batch["index"]] + 0.5 * queries, dim=1)
    torch.testing.assert_close(mechanism.bank[batch["index"]], moved.detach())
    others = torch.ones(50, dtype=torch.bool)
    others[batch["index"]] = False
    assert torch.equal(mechanism.bank[others], before[others])


def test_shuffling_changes_which_images_share_statistics_but_not_their_order() -> None:
    batch = views()
    mechanism = moco()
    with torch.no_grad():
        in_order = keys_of_all(mechanism.key, batch)
        shuffled = keys_of_all(mechanism.key, dealt(batch))
        mechanism.key.eval()
        torch.testing.assert_close(
            keys_of_all(mechanism.key, batch), keys_of_all(mechanism.key, dealt(batch))
        )
    assert not torch.allclose(in_order, shuffled)


def test_where_the_queue_stands_is_part_of_the_state() -> None:
    mechanism = moco()
    mechanism(views())
    again = moco()
    again.load_state_dict(mechanism.state_dict())
    keys = torch.ones(8, 16)
    again.enqueue(keys)
    assert torch.equal(again.queue[8:16], keys)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"negatives": 1000}, r"batch_size 256 must divide negatives 1000.*768 and 1024"),
        ({"sub_batch": 48}, "sub_batch 48 must divide batch_size 256"),
        ({"key_momentun": 0.9}, "key_momentun: no such field; did you mean 'key_momentum'"),
        ({"mechanism": "simclr"}, "mechanism: Input should be 'moco'"),
    ],
)
def test_a_config_that_cannot_work_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(PretrainConfig, fields)


def test_the_defaults_are_the_papers() -> None:
    config = PretrainConfig()
    assert (config.batch_size, config.lr, config.scaled_lr) == (256, 0.03, 0.03)
    assert (config.dim, config.negatives, config.key_momentum) == (128, 65536, 0.999)
    assert (config.temperature, config.epochs, config.weight_decay) == (0.07, 200, 1e-4)
    assert [round(drop * config.epochs) for drop in config.schedule.drops] == [120, 160]


def test_a_billion_images_are_trained_on_as_the_paper_says() -> None:
    config = ig1b()
    assert (config.batch_size, config.scaled_lr, config.negatives) == (1024, 0.12, 65536)
    assert config.total_steps(918_000) == 1_250_000
    rates = {
        step: config.scaled_lr * lr_factor(config.schedule, step, 1_250_000, 918_000)
        for step in (0, 62_499, 62_500, 1_249_999)
    }
    assert rates == pytest.approx({0: 0.12, 62_499: 0.12, 62_500: 0.108, 1_249_999: 0.12 * 0.9**19})
    small = config.miniature()
    assert small.total_steps(131) == 786
    ends = [
        lr_factor(one.schedule, length - 1, length, 131)
        for one, length in ((config, 1_250_000), (small, 786))
    ]
    assert ends[1] == pytest.approx(ends[0], rel=0.2)
    assert config.gpu_hours() == pytest.approx(1_250_000 * 1024 / 168 / 3600)
    assert config.fit(2_000_000).iterations == 1_250_000


def test_version_2_differs_in_head_views_schedule_and_temperature() -> None:
    config = moco_v2_config(epochs=800)
    assert (config.head, config.temperature, config.epochs) == ("mlp", 0.2, 800)
    assert config.schedule.kind == "cosine"
    assert (config.augmentation.blur_probability, config.augmentation.hue) == (0.5, 0.1)
    assert config.derive(**PretrainConfig().model_dump(mode="json")) == PretrainConfig()
    head = build_mechanism(config.derive(architecture="resnet_digits"), 1).query.head
    assert [type(layer).__name__ for layer in head] == ["Linear", "ReLU", "Linear"]


@pytest.mark.parametrize(
    ("images", "epochs", "negatives"),
    [(1_281_167, 200, 65536), (320_000, 400, 65536), (12_000, 1600, 4096), (512, 1600, 256)],
)
def test_a_pretraining_is_fitted_to_its_images(images: int, epochs: int, negatives: int) -> None:
    fitted = PretrainConfig().fit(images)
    assert (fitted.epochs, fitted.negatives) == (epochs, negatives)
    knn = KnnConfig().model_dump(mode="json")
    assert fitted.derive(epochs=200, negatives=65536, knn=knn) == PretrainConfig()


def test_images_too_few_for_a_batch_are_refused() -> None:
    with pytest.raises(ConfigError, match="512 images at least, two batches of 256; there are 511"):
        PretrainConfig().fit(511)


def test_a_queue_longer_than_there_are_images_is_refused_with_one_that_fits(
    tmp_path: Path,
) -> None:
    (tmp_path / "2019" / ".thumbnails").mkdir(parents=True)
    for number in range(3000):
        (tmp_path / "2019" / f"{number}.JPG").touch()
        (tmp_path / "2019" / ".thumbnails" / f"{number}.jpg").touch()
    config = PretrainConfig(data="images")
    with pytest.raises(ConfigError, match=r"65,536 negatives are more than the 3,000 .*: 1,024 "):
        config.inspect({"data": tmp_path})
    config.fit(3000).inspect({"data": tmp_path})
    config.derive(mechanism="end_to_end").inspect({"data": tmp_path})
    config.inspect({})
