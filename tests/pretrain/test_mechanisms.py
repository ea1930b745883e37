"""Truths of Sec. 3 and Appendix A.9, with real tensors."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from components.core.config import parse_config
from components.core.errors import ConfigError
from components.pretrain import PretrainConfig, moco_v2_config
from components.pretrain.batch_norm import SubBatchNorm2d, shuffle_across_gpus, unshuffle
from components.pretrain.mechanisms import EndToEnd, MemoryBank, MomentumContrast, build_mechanism

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
    }


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
        mechanism.steps = step
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
    mechanism = EndToEnd(SMALL.derive(mechanism="end_to_end")).train()
    batch = views()
    twin = copy.deepcopy(mechanism)
    logits, targets = mechanism.contrast(batch)
    assert logits.shape == (8, 8)
    assert targets.tolist() == list(range(8))
    F.cross_entropy(logits, targets).backward()
    assert all(parameter.grad is not None for parameter in mechanism.key.parameters())
    queries = twin.query(batch["query"])
    keys = twin.keys(twin.key, batch["key"])
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


def test_sub_batches_are_normalised_as_if_alone() -> None:
    torch.manual_seed(0)
    norm = SubBatchNorm2d(6)
    norm.sub_batch = 4
    images = torch.randn(12, 6, 5, 5) * torch.arange(1, 13).view(12, 1, 1, 1)
    plain = torch.nn.BatchNorm2d(6)
    expected = torch.cat([copy.deepcopy(plain)(part) for part in images.split(4)])
    torch.testing.assert_close(norm(images), expected)


def test_running_statistics_forget_as_fast_as_plain_batch_norm() -> None:
    torch.manual_seed(0)
    norm = SubBatchNorm2d(3)
    norm.sub_batch = 2
    plain = torch.nn.BatchNorm2d(3)
    images = torch.randn(2, 3, 4, 4).repeat(4, 1, 1, 1)  # every sub-batch has equal statistics
    norm(images)
    plain(images[:2])
    assert norm.running_mean is not None
    torch.testing.assert_close(norm.running_mean, plain.running_mean)
    torch.testing.assert_close(norm.running_var, plain.running_var)
    norm.eval()
    torch.testing.assert_close(norm(images), plain.eval()(images))


def test_shuffling_deals_every_image_once_and_is_undone() -> None:
    images = torch.arange(16.0).view(16, 1).repeat(1, 3)
    dealt, permutation = shuffle_across_gpus(images, seed=3)
    assert not torch.equal(dealt, images)
    assert sorted(dealt[:, 0].tolist()) == list(range(16))
    assert torch.equal(unshuffle(dealt, permutation), images)
    again, _ = shuffle_across_gpus(images, seed=3)
    assert torch.equal(dealt, again)


def test_shuffling_changes_which_images_share_statistics_but_not_their_order() -> None:
    batch = views()
    plain, shuffled = moco(shuffle="plain"), moco(shuffle="shuffled")
    with torch.no_grad():
        in_order = plain.keys(plain.key, batch["key"])
        dealt = shuffled.keys(shuffled.key, batch["key"])
        shuffled.key.eval()
        plain.key.load_state_dict(shuffled.key.state_dict())
        plain.key.eval()
        torch.testing.assert_close(
            plain.keys(plain.key, batch["key"]), shuffled.keys(shuffled.key, batch["key"])
        )
    assert not torch.allclose(in_order, dealt)


def test_steps_are_part_of_the_state() -> None:
    mechanism = moco()
    mechanism(views())
    again = moco()
    again.load_state_dict(mechanism.state_dict())
    assert again.steps == 1
    assert again.step_seed() == mechanism.step_seed()


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


def test_version_2_differs_in_head_views_schedule_and_temperature() -> None:
    config = moco_v2_config(epochs=800)
    assert (config.head, config.temperature, config.epochs) == ("mlp", 0.2, 800)
    assert config.schedule.kind == "cosine"
    assert (config.augmentation.blur_probability, config.augmentation.hue) == (0.5, 0.1)
    assert config.derive(**PretrainConfig().model_dump(mode="json")) == PretrainConfig()
    head = build_mechanism(config.derive(architecture="resnet_digits"), 1).query.head
    assert [type(layer).__name__ for layer in head] == ["Linear", "ReLU", "Linear"]
