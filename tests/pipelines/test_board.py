"""`moco board` shows the event files of trainings, wherever they are."""

import json
import multiprocessing
import os
import signal
import socket
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from components.core.errors import DataError, ExitCode
from components.core.manifest import Manifest, hash_folder, read_manifest, write_manifest
from components.core.stage import Stage
from components.core.store import FolderStore
from components.training.checkpoint import Checkpointer
from pipelines.__main__ import main
from pipelines.cli.board import _fetch, _write
from pipelines.plan import Plan
from pipelines.runs.artifacts import artifact_here
from pipelines.runs.folder import Run
from pipelines.runs.history import read_history
from tests.pipelines.conftest import Execute

pytestmark = pytest.mark.usefixtures("world")
SECONDS = 90


@pytest.fixture
def run(toy: Stage[Any], run_plan: Execute) -> Run:
    """A run of two steps, of which one has event files as a training writes them."""
    plan = Plan("boarded", "digits")
    for seed, name in enumerate(("trained", "plain")):
        plan.add(toy, name, toy.config(seed=seed))
    run, code = run_plan(plan)
    assert code == ExitCode.OK
    with SummaryWriter(str(run.artifact("trained", "metrics") / "tensorboard")) as writer:
        writer.add_scalar("loss", 0.5, 1)
    return run


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_trainings_of_a_run_are_on_the_page_until_it_is_interrupted(run: Run) -> None:
    port = free_port()
    command = ["board", run.id, "--port", str(port)]
    page = multiprocessing.get_context("fork").Process(target=main, args=(command,))
    page.start()
    try:
        shown: list[str] = []
        deadline = time.monotonic() + SECONDS
        while not shown and time.monotonic() < deadline:
            time.sleep(0.3)
            try:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{port}/data/runs", timeout=5
                ) as said:
                    shown = json.load(said)
            except OSError:
                assert page.is_alive()
        assert shown == [f"{run.id}/trained"]
        assert page.pid
        os.kill(page.pid, signal.SIGINT)
        page.join(20)
        assert not page.is_alive()
    finally:
        page.kill()


def test_without_event_files_there_is_nothing_to_show(
    toy: Stage[Any], run_plan: Execute, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Plan("plain", "digits")
    plan.add(toy, "plain", toy.config())
    run, _ = run_plan(plan)
    assert main(["board", run.id]) == ExitCode.BAD_DATA
    assert "no training of these runs has written anything yet" in capsys.readouterr().err
    assert main(["board"]) == ExitCode.USAGE


def test_of_a_stored_artifact_only_event_files_are_fetched_and_verified(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run.artifact("trained", "metrics")
    manifest = read_manifest(folder)
    (folder / "manifest.json").unlink()
    write_manifest(folder, Manifest(**{**dict(manifest), "files": hash_folder(folder)}))
    stored = artifact_here(folder)

    fetched = _fetch(stored, run, "trained")

    assert fetched is not None
    events = list((folder / "tensorboard").iterdir())
    assert [path.name for path in fetched.iterdir()] == [path.name for path in events]
    assert _fetch(artifact_here(run.artifact("plain", "metrics")), run, "plain") is None
    events[0].write_bytes(events[0].read_bytes()[:-1] + b"x")
    for path in fetched.iterdir():
        path.unlink()
    assert _fetch(stored, run, "trained") is None
    assert "is not what its manifest says" in capsys.readouterr().err


def test_what_a_checkpoint_says_of_a_training_under_way_is_written_as_events(
    run: Run, tmp_path: Path
) -> None:
    store = FolderStore(tmp_path / "store")
    state = "trained/1/encoder.state"
    rows = [{"step": 1, "epoch": 0.5, "loss": 2.0}, {"step": 2, "epoch": 1.0, "loss": 1.0}]
    saving = Checkpointer(FolderStore(tmp_path / "store" / state), {})
    assert read_history(store, "trained") == []
    for step in (1, 2):
        saving.finish(step, {"module": {"w": torch.zeros(2)}, "history": rows[:step]})

    found = read_history(store, "trained")

    assert found == rows
    folder = _write(found, run, "trained")
    assert folder is not None
    events = EventAccumulator(str(folder)).Reload()
    assert events.Tags()["tensors"] == ["loss"]
    assert [event.step for event in events.Tensors("loss")] == [1, 2]
    assert _write([], run, "trained") is None
    store.write(f"{state}/checkpoints/0000000002/state.json", b"[]")
    with pytest.raises(DataError, match="is no checkpoint"):
        read_history(store, "trained")
