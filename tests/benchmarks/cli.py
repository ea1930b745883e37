"""How long the command line takes to answer, and what the embedded runner adds to its steps."""

import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.digits import STAGE as DIGITS
from components.rendering.config import DigitsConfig
from pipelines.backends.local.execute import execute
from pipelines.backends.local.machine import Machine
from pipelines.backends.local.sources import Sources
from pipelines.cli.display import PlainDisplay
from pipelines.plan import Plan
from pipelines.runs.folder import create_run

ROOT = Path(__file__).parents[2]
HELP_SECONDS = 0.3
ROUNDS = 7
STEPS = 4
HEAVY = {"torch", "torchvision", "numpy", "kfp", "sklearn", "minio", "cv2"}
LIBRARIES = "import cyclopts, pydantic, rich.table; pydantic.BaseModel"
COMMANDS = {
    "help": ("--help",),
    "list": ("list",),
    "plan": ("plan", "appendix", "--scale", "digits"),
}


def run() -> list[dict[str, Any]]:
    """Measure the commands that only look, and a run of short steps."""
    with tempfile.TemporaryDirectory() as name:
        os.environ["MOCO_RUNS"] = f"{name}/none"
        results = [_answer(command) for command in COMMANDS]
        return [*results, _runner(Path(name))]


def _answer(command: str) -> dict[str, Any]:
    """Time a command; help against its limit, the others against importing their libraries."""
    arguments = COMMANDS[command]
    ours = _wall([sys.executable, "-m", "pipelines", *arguments])
    program = (
        "import sys; from pipelines.__main__ import main; "
        f"main({list(arguments)!r}); print('\\nMODULES', *sys.modules)"
    )
    output = _output([sys.executable, "-c", program])
    heavy = sorted(HEAVY & set(output.rpartition("MODULES ")[2].split()))
    imports = f"imports of its heavy libraries: {', '.join(heavy) or 'none'}"
    if command == "help":
        ratio, goal, against = HELP_SECONDS / ours, 1.0, f"limit {HELP_SECONDS} s"
    else:
        libraries = _wall([sys.executable, "-c", LIBRARIES])
        ratio, goal, against = libraries / ours, None, f"cyclopts, pydantic, rich {libraries:.3f} s"
    return {
        "name": f"cli: moco {' '.join(arguments)}",
        "ratio": round(ratio, 2),
        "goal": goal,
        "detail": f"{against}, ours {ours:.3f} s, best of {ROUNDS + 1}; {imports}",
    }


def _runner(folder: Path) -> dict[str, Any]:
    """Time steps run one after the other by the runner, against the same commands in a loop."""
    environment = {**os.environ, **Machine(1, (), 1).environment(())}
    seconds: dict[str, list[float]] = {"bare": [], "ours": []}
    for turn in range(4):
        plan = Plan("bench", "digits")
        for step in range(STEPS):
            config = DigitsConfig(seed=100 * turn + step, train_scenes=100, val_scenes=100)
            plan.add(DIGITS, f"digits{step}", config)
        started = time.perf_counter()
        for planned in plan:
            outputs = {port: f"{folder}/{turn}/{planned.name}/{port}" for port in DIGITS.outputs}
            argv = [sys.executable, *DIGITS.argv(planned.config.to_json(), {}, outputs)]
            subprocess.run(argv, env=environment, cwd=ROOT, check=True, capture_output=True)
        seconds["bare"].append(time.perf_counter() - started)
        started = time.perf_counter()
        run = create_run(folder / "runs", plan)
        code = execute(run, Sources({}, {}), Machine(1, (), 1), PlainDisplay(io.StringIO()))
        assert code == 0
        seconds["ours"].append(time.perf_counter() - started)
    bare, ours = (min(seconds[way]) for way in ("bare", "ours"))
    return {
        "name": f"runner: {STEPS} short steps, one at a time",
        "ratio": round(bare / ours, 2),
        "goal": 0.9,
        "detail": f"the same commands in a loop {bare:.2f} s, ours {ours:.2f} s",
    }


def _wall(command: Sequence[str]) -> float:
    """Return the least wall time of a command: what else the machine does only adds to it."""
    times = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        _output(command)
        times.append(time.perf_counter() - started)
    return min(times)


def _output(command: Sequence[str]) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(
        command, env=environment, cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


if __name__ == "__main__":
    for result in run():
        print(result)
