"""Steps forked from a process that has imported what they need: like started ones, but sooner."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from components.core.stage import Stage
from pipelines.backends.local.execute import execute
from pipelines.backends.local.forkserver import ForkServer
from pipelines.backends.local.machine import Machine
from pipelines.backends.local.process import ForkedProcess, StepProcess
from pipelines.backends.local.reuse import output_digests
from pipelines.backends.local.sources import find_sources
from pipelines.cli.display import PlainDisplay
from pipelines.plan import Plan
from pipelines.runs.folder import Run, create_run

ROOT = Path(__file__).parents[2]
PROBE = """\
import json, os, signal, sys, time

if "wait" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    print("waiting", flush=True)
    time.sleep(60)
facts = {
    "argv": sys.argv[1:],
    "early": "wave" in sys.modules,
    "folder": os.getcwd(),
    "leads": os.getsid(0) == os.getpid(),
    "parent": os.getppid(),
    "variable": os.environ.get("PROBED"),
    "stray": os.environ.get("STRAY"),
}
print(json.dumps(facts))
sys.exit(7)
"""
RUNNER = """\
import pathlib, sys, time
from pipelines.backends.local.forkserver import ForkServer
from pipelines.backends.local.process import StepProcess

server = ForkServer({}, ["wave"])
while not server.is_ready():
    time.sleep(0.01)
step = StepProcess.start(["-m", "probe", "wait"], {}, pathlib.Path(sys.argv[1]), [], server)
print(step.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the module `probe`, on the path of what is started."""
    (tmp_path / "probe.py").write_text(PROBE)
    (tmp_path / "threaded.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    return tmp_path


@pytest.fixture
def server(path: Path) -> Iterator[ForkServer]:
    server = ForkServer({}, ["wave", "no_such_module"])
    until(server.is_ready)
    yield server
    server.stop()


def until(holds: Callable[[], Any], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_forked_step_is_a_child_in_a_session_of_its_own(
    server: ForkServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRAY", "set after the server had begun")
    monkeypatch.chdir(path)
    log = path / "log"
    step = StepProcess.start(["-m", "probe", "a b"], {"PROBED": "yes"}, log, [], server)
    until(lambda: step.poll() is not None)

    assert isinstance(step.process, ForkedProcess)
    assert step.poll() == 7
    assert json.loads(log.read_text()) == {
        "argv": ["a b"],
        "early": True,
        "folder": str(path),
        "leads": True,
        "parent": os.getpid(),
        "variable": "yes",
        "stray": "set after the server had begun",
    }


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_forked_step_is_stopped_like_any_other(
    server: ForkServer, path: Path, number: int, code: int
) -> None:
    log = path / "log"
    step = StepProcess.start(["-m", "probe", "wait"], {}, log, [], server)
    until(lambda: log.read_text() == "waiting\n")

    step.terminate() if number == signal.SIGTERM else step.kill()

    until(lambda: step.poll() is not None)
    assert step.poll() == code


def test_a_forked_step_ends_with_its_runner(path: Path) -> None:
    log = path / "log"
    with subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(log)], stdout=subprocess.PIPE, text=True
    ) as runner:
        assert runner.stdout
        pid = int(runner.stdout.readline())
        until(lambda: log.read_text() == "waiting\n")
        runner.kill()

    until(lambda: not Path(f"/proc/{pid}").exists() or "zombie" in state(pid))


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


@pytest.mark.parametrize("modules", [["threaded"], ["wave"]])
def test_a_step_is_started_where_it_cannot_be_forked(path: Path, modules: list[str]) -> None:
    """The server has a thread, or has ended."""
    server = ForkServer({}, modules)
    if modules == ["wave"]:
        until(server.is_ready)
        server.stop()
    else:
        until(lambda: server._process.poll() is not None)
    assert not server.is_ready()

    step = StepProcess.start(["-m", "probe"], {}, path / "log", [], server)

    until(lambda: step.poll() is not None)
    assert (isinstance(step.process, ForkedProcess), step.poll()) == (False, 7)


def test_forked_steps_make_what_started_ones_make(
    toy: Stage[Any], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan("forked", "digits")
    step = plan.add(toy, "first", toy.config())
    for number in range(3):
        step = plan.add(toy, f"next_{number}", toy.config(seed=number), model=step.output("model"))
    digests: list[Any] = []
    forks: list[Sequence[str]] = []
    fork = ForkServer.fork

    def counted(server: ForkServer, argv: Sequence[str], *given: Any) -> int:
        forks.append(argv)
        return fork(server, argv, *given)

    monkeypatch.setattr(ForkServer, "fork", counted)
    monkeypatch.setattr("pipelines.backends.local.forkserver.MODULES", ("wave",))
    for wanted in ("0", "1"):
        monkeypatch.setenv("MOCO_FORK", wanted)
        run = run_alone(plan, runs / wanted)
        assert run.state == "finished"
        digests.append([output_digests(run, step) for step in plan])

    assert digests[0] == digests[1]
    assert len(forks) >= 1


def run_alone(plan: Plan, runs: Path) -> Run:
    """Execute a plan in a folder of runs of its own."""
    run = create_run(runs, plan)
    with (runs / "shown").open("w") as shown:
        execute(run, find_sources(plan, {}, runs), Machine(2, (), 1), PlainDisplay(shown))
    return run
