"""Two nodes of one training: two programs of this machine that have torchrun's variables."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from components.core.errors import ConfigError, ExitCode, MocoError
from components.core.manifest import MANIFEST, Manifest, verify
from components.datasets.imagenet import digits as imagenet
from components.pretrain import PretrainConfig
from components.rendering.config import DigitsConfig
from components.training import distributed
from tests.programs import Program
from tests.training.learner import CONFIG, work
from tests.training.test_loop import CHECKPOINTS, saved_steps, weights_hash

SLOWLY = {"MOCO_TEST_PAUSE": "0.3"}  # so that there is a middle to be lost in
pytestmark = pytest.mark.slow

SECONDS = 240  # for what takes a few, but for a machine that is busy with other tests


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def variables(rank: int, port: int, nodes: int = 2) -> dict[str, str]:
    """Return what Kubeflow Trainer sets in the pod of a node."""
    return {
        "PET_NNODES": str(nodes),
        "PET_NPROC_PER_NODE": "1",
        "PET_NODE_RANK": str(rank),
        "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": str(port),
    }


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Program]:
    """Run a node's program in a group of its own, which is killed at the end of the block."""
    process = Program(command, environment)
    try:
        yield process
    finally:
        kill(process)
        process.communicate()


def kill(process: Program) -> None:
    """End all processes of a node without a word, as a machine that fails does."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def learner(folder: Path, *more: str) -> list[str]:
    return ["-m", "tests.training.learner", str(folder), "1", *more]


def ended(*nodes: Program) -> list[tuple[int, str]]:
    """Return exit code and stderr of nodes that end by themselves."""
    errors = [node.communicate(timeout=SECONDS)[1] for node in nodes]
    return [(node.returncode, error) for node, error in zip(nodes, errors, strict=True)]


def await_checkpoint(folder: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while not list((folder / CHECKPOINTS).glob("*/manifest.json")):
        assert time.monotonic() < deadline, "no checkpoint was saved"
        time.sleep(0.01)


def test_two_nodes_train_what_two_processes_train_whoever_starts_first(tmp_path: Path) -> None:
    alone, apart = tmp_path / "alone", tmp_path / "apart"
    distributed.launch(2, work, CONFIG, str(alone))
    port = free_port()
    with running(learner(apart), variables(1, port)) as second:
        assert second.stderr is not None
        assert "waiting for the first node" in second.stderr.readline()
        with running(learner(apart), variables(0, port)) as first:
            endings = ended(first, second)
    assert [code for code, _ in endings] == [0, 0], endings
    assert weights_hash(apart) == weights_hash(alone)
    assert saved_steps(apart)[-1] == saved_steps(alone)[-1]
    assert (apart / "output/history.jsonl").read_text() == (
        alone / "output/history.jsonl"
    ).read_text()


@pytest.mark.parametrize("lost", [0, 1])
def test_when_a_node_is_lost_the_other_ends_and_both_can_continue(
    tmp_path: Path, lost: int
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    distributed.launch(2, work, CONFIG, str(whole))
    port = free_port()
    with (
        running(learner(parts), variables(0, port) | SLOWLY) as first,
        running(learner(parts), variables(1, port) | SLOWLY) as second,
    ):
        await_checkpoint(parts)
        nodes = [first, second]
        kill(nodes.pop(lost))
        ((code, error),) = ended(*nodes)
    assert code == ExitCode.FAILURE
    assert f"node {1 - lost} of 2 cannot go on" in error
    assert saved_steps(parts)[-1] < 28
    port = free_port()
    with (
        running(learner(parts), variables(0, port)) as first,
        running(learner(parts), variables(1, port)) as second,
    ):
        endings = ended(first, second)
    assert [code for code, _ in endings] == [0, 0], endings
    assert weights_hash(parts) == weights_hash(whole)


def test_what_is_wrong_on_one_node_ends_all_with_its_exit_code(tmp_path: Path) -> None:
    port = free_port()
    with (
        running(learner(tmp_path, "3"), variables(0, port)) as first,
        running(learner(tmp_path, "3"), variables(1, port)) as second,
    ):
        endings = ended(first, second)
    assert [code for code, _ in endings] == [ExitCode.NON_FINITE] * 2, endings


@pytest.mark.parametrize("rank", [0, 1])
def test_a_node_waits_for_the_others_only_so_long(
    rank: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in variables(rank, free_port()).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "JOIN_SECONDS", 2)
    with pytest.raises(MocoError, match=rf"node {rank} of 2 cannot go on: .*127\.0\.0\.1"):
        distributed.launch(1, work, CONFIG, str(tmp_path))


def test_a_name_that_is_not_known_yet_is_looked_up_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address = {"PET_MASTER_ADDR": "nobody.invalid"}
    for name, value in (variables(1, free_port()) | address).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "JOIN_SECONDS", 3)
    started = time.monotonic()
    with pytest.raises(MocoError, match="node 1 of 2 cannot go on"):
        distributed.launch(1, work, CONFIG, str(tmp_path))
    assert time.monotonic() - started >= 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"PET_NNODES": "1:4"}, "PET_NNODES is '1:4'; it must be a number"),
        ({"PET_NODE_RANK": "2"}, "PET_NODE_RANK 2: there are 2 nodes, from 0"),
        ({"PET_MASTER_ADDR": ""}, "PET_MASTER_ADDR is not set"),
        ({"PET_MASTER_PORT": ""}, "PET_MASTER_PORT is ''"),
    ],
)
def test_variables_that_cannot_be_are_refused(
    wrong: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in (variables(0, 29500) | wrong).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        distributed.launch(None, work, CONFIG, str(tmp_path))


def test_one_node_of_a_training_job_is_a_machine_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in variables(0, 29500, nodes=1).items():
        monkeypatch.setenv(name, value)
    assert distributed.launch(1, work, CONFIG, str(tmp_path))


def pretraining(data: Path, folder: Path, processes: int | None) -> list[str]:
    config = PretrainConfig().miniature()
    config = config.derive(epochs=1, batch_size=16, negatives=64, sub_batch=4, processes=processes)
    config = config.derive(knn={"neighbours": 5}, log_every=2)
    return [
        "-m",
        "components.pretrain",
        "--config",
        config.to_json(),
        "--mount.data",
        str(data),
        "--output.encoder",
        str(folder / "encoder"),
        "--output.metrics",
        str(folder / "metrics"),
        "--state",
        str(folder.parent / f"{folder.name.partition('-')[0]}.state"),
    ]


def manifests(folder: Path) -> dict[str, Manifest]:
    return {port: verify(folder / port) for port in ("encoder", "metrics")}


def without_processes(manifest: Manifest) -> dict[str, object]:
    config = {name: one for name, one in manifest.config.items() if name != "processes"}
    return manifest.model_dump() | {"config": config, "files": sorted(manifest.files)}


def test_the_first_nodes_artifacts_are_those_of_a_single_pod(tmp_path: Path) -> None:
    data = tmp_path / "data"
    imagenet.write(DigitsConfig(train_scenes=64, val_scenes=30, pixels=48), data)
    single, first, second = (tmp_path / name for name in ("single", "nodes-0", "nodes-1"))
    with running(pretraining(data, single, processes=2), {}) as program:
        assert ended(program)[0][0] == 0
    port = free_port()
    with (
        running(pretraining(data, first, processes=None), variables(0, port)) as one,
        running(pretraining(data, second, processes=None), variables(1, port)) as other,
    ):
        endings = ended(one, other)
    assert [code for code, _ in endings] == [0, 0], endings
    assert not list(second.rglob(MANIFEST))
    alone, together = manifests(single), manifests(first)
    for port_name, manifest in together.items():
        expected = without_processes(alone[port_name])
        names = {
            name for name in (*alone[port_name].files, *manifest.files) if "tensorboard" in name
        }
        found = without_processes(manifest)
        for one_of_them in (expected, found):  # event files are called after time and host
            listed = one_of_them["files"]
            assert isinstance(listed, list)
            one_of_them["files"] = [name for name in listed if name not in names]
        assert found == expected
    assert together["encoder"].digest == alone["encoder"].digest
    metrics = [json.loads((one / "metrics/metrics.json").read_text()) for one in (single, first)]
    assert metrics[0] == metrics[1]
