"""The toy world: a real stage and a recipe that exist only in these tests."""

import functools
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import components
import pipelines.backends
import pipelines.recipes
from components.core.stage import Stage, load_stage
from pipelines.backends.local.execute import _Execution, execute
from pipelines.backends.local.forkserver import ForkServer
from pipelines.backends.local.machine import Machine
from pipelines.backends.local.process import import_path
from pipelines.backends.local.sources import find_sources
from pipelines.cli.display import PlainDisplay
from pipelines.plan import Plan
from pipelines.runs.folder import Run, create_run
from tests.programs import ONE_THREAD, ready

WORLD = Path(__file__).parent / "world"
ROOT = Path(__file__).parents[2]

IMPORTED = ("pydantic", "structlog.dev", "minio", "jinja2", "matplotlib.figure", "scipy.special")

Execute = Callable[..., tuple[Run, int]]


@pytest.fixture(scope="module")
def world() -> Iterator[Path]:
    """Make `components.toy` and the recipe `toys` importable, here and in started processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(WORLD)
        patch.setattr(components, "__path__", [*components.__path__, str(WORLD / "components")])
        recipes = [*pipelines.recipes.__path__, str(WORLD / "recipes")]
        patch.setattr(pipelines.recipes, "__path__", recipes)
        backends = [*pipelines.backends.__path__, str(WORLD / "backends")]
        patch.setattr(pipelines.backends, "__path__", backends)
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("MOCO_FORK", "0")  # the toy does not import torch
        patch.setattr(_Execution, "_fork_server", lambda _: toy_server())
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # steps start twice as fast
        yield WORLD


@functools.cache
def toy_server() -> ForkServer:
    """Return the process that toys and their reports are forked from, which saves seconds."""
    return ready(ForkServer({**import_path(), **ONE_THREAD}, IMPORTED))


@pytest.fixture
def toy(world: Path) -> Stage[Any]:
    """The toy's declaration."""
    return load_stage("toy")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of runs, the one that commands use."""
    monkeypatch.setenv("MOCO_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def run_plan(runs: Path) -> Execute:
    """Execute a plan, in a new run or in one that was begun; return run and exit code."""

    def run_plan(
        plan: Plan, run: Run | None = None, gpus: tuple[str, ...] = (), jobs: int = 2
    ) -> tuple[Run, int]:
        sources = find_sources(plan, {}, runs)
        run = run or create_run(runs, plan)
        return run, execute(run, sources, Machine(2, gpus, jobs), PlainDisplay(io.StringIO()))

    return run_plan
