"""Fixtures that every test may ask for."""

import inspect
import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.servers.minio"]

# kfp reads the source of the whole stack whenever it sets something of a task, and for frames of
# pytest-xdist, which have none, Python searches all modules: compiling takes ten times as long.
inspect.stack = partial(inspect.stack, 0)
inspect.modulesbyfile["<string>"] = "__main__"


# More workers than cores make any example slow at times.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow files, so that none of them is left to one worker at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def forked_processes() -> None:
    """Fork the processes of a training that a test launches, in place of starting each.

    Programs that tests start do as users' do, and so do the pods on a cluster. With a GPU each is
    started: a forked one has the variables of when forking began, MOCO_SHARE_GPU not among them.
    """
    torch = sys.modules.get("torch")
    if torch is None or torch.cuda.is_available():
        return
    from components.training import distributed

    forked = partial(replace, start_method="forkserver")
    configured = distributed._launch_config
    distributed._launch_config = lambda count, nodes: forked(configured(count, nodes))
    multiprocessing.set_forkserver_preload(["torch", "torchvision", "cv2"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 1 MiB, or skip where that is not allowed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no `mount` here")
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=False)
