"""The image of the stages, as it was built here: in the conditions of a pod, and as any user."""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import ExitCode
from components.core.manifest import read_manifest
from components.core.stage import load_stage, stage_names
from components.core.version import code_of
from components.digits import STAGE as DIGITS
from images.build import Engine
from pipelines.recipes import Options, build_plan, load_recipe
from tests.images.pod import RESTRICTED, SECONDS, Run, built_image

PROBE = """\
import json
from components.core.stage import load_stage, stage_names
from components.core.version import code_of
stages = [load_stage(name) for name in stage_names()]
print(json.dumps({one.name: code_of(one, one.config()).model_dump() for one in stages}))
"""


@pytest.fixture(scope="module")
def image(engine: Engine) -> str:
    return built_image("torch")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """Return a folder that the container's user may write to."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def mounted(folder: Path) -> tuple[str, ...]:
    """Mount a folder; what is written there belongs to who runs the tests, unless to root."""
    return ("-v", f"{folder}:/scratch", "--user", str(os.getuid() or 12345))


@pytest.fixture
def of_this_code(run: Run) -> None:
    """Skip what hands this checkout's configs to an image of other code."""
    done = run("python", "-c", PROBE)
    assert done.returncode == 0, done.stderr
    known = json.loads(done.stdout)
    for name in ("digits", "pretrain"):
        stage = load_stage(name)
        if known[name]["digest"] != code_of(stage, stage.config()).digest:
            pytest.skip("the image was built from other code: `make images` builds it again")


def test_it_identifies_its_code(run: Run, image: str, engine: Engine) -> None:
    labels = engine.inspect(image)["Config"]["Labels"]

    done = run("python", "-c", PROBE)

    known = json.loads(done.stdout)
    assert known.keys() == set(stage_names())
    for code in known.values():
        assert code["version"] == labels["org.opencontainers.image.version"]
        assert code["commit"] == labels["org.opencontainers.image.revision"]


def test_it_holds_what_runs_and_not_what_builds(run: Run) -> None:
    done = run("sh", "-c", "id -u; for x in python moco gcc g++ pip uv; do command -v $x; done; :")

    user, *tools = done.stdout.split()
    assert user == "12345"
    assert tools == ["/opt/venv/bin/python", "/opt/moco/bin/moco", "/usr/bin/gcc"]


def test_triton_can_build_what_launches_its_kernels(run: Run) -> None:
    # It compiles an extension module for Python when a training starts, as any user.
    code = "#include <Python.h>\nint main(void) { return Py_IsInitialized(); }"
    headers = "$(python -c 'import sysconfig; print(sysconfig.get_path(\"include\"))')"

    done = run(
        "sh", "-c", f"cd /tmp && echo '{code}' | gcc -I{headers} -shared -fPIC -xc - -o x.so"
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_of_it_can_be_written_by_everybody(run: Run) -> None:
    done = run("sh", "-c", "find /opt /usr /etc -perm -o+w ! -type l 2>/dev/null")

    assert done.stdout == ""


def test_every_module_can_be_imported(run: Run) -> None:
    code = (
        "import importlib, pkgutil, components, pipelines\n"
        "for package in (components, pipelines):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if not module.name.endswith('__main__'):\n"
        "            try:\n"
        "                importlib.import_module(module.name)\n"
        "            except ModuleNotFoundError as error:\n"
        "                if '.libraries.detectron2.' not in module.name:\n"
        "                    raise\n"
        "                assert error.name in ('detectron2', 'densepose', 'fvcore'), error\n"
    )

    done = run("python", "-W", "error::ImportWarning", "-c", code)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("stage", sorted(stage_names()))
def test_a_stages_own_command_line_is_the_entry(run: Run, stage: str) -> None:
    done = run("python", "-m", f"components.{stage}", "--help")

    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: python -m components.{stage} " in done.stdout


def test_moco_is_there_and_what_runs_without_a_command(run: Run) -> None:
    assert "Usage: moco" in run().stdout
    assert "\nappendix: " in run("moco", "list").stdout


def test_a_data_set_can_be_checked_in_it(run: Run, shared: Path) -> None:
    (shared / "train").mkdir()

    done = run("moco", "data", "check", "imagenet", "/scratch", options=mounted(shared))

    assert done.returncode == ExitCode.BAD_DATA, done.stderr
    assert "/scratch: " in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.usefixtures("of_this_code")
def test_a_stopped_training_saves_and_the_same_command_continues(
    image: str, run: Run, container: str, shared: Path
) -> None:
    plan = build_plan(load_recipe("pretrain"), Options(scale="digits"))
    digits = plan.step("digits").config
    digits = digits.derive(train_scenes=400, val_scenes=50, pictures={"train": 20, "val": 20})
    outputs = {port: f"/scratch/{port}" for port in DIGITS.outputs}
    made = run("python", *DIGITS.argv(digits.to_json(), {}, outputs), options=mounted(shared))
    assert made.returncode == 0, made.stderr
    assert read_manifest(shared / "imagenet").stage == "digits"
    config = plan.step("pretrain_moco_in1m").config.model_copy(update={"epochs": 1000})

    docker(
        *("run", "--detach", "--name", container, *RESTRICTED, *mounted(shared)),
        *("--env", "OMP_NUM_THREADS=1", image, "python", "-m", "components.pretrain"),
        *("--config", config.to_json(), "--input.data", "/scratch/imagenet"),
        *("--output.encoder", "/scratch/encoder", "--output.metrics", "/scratch/metrics"),
        *("--state", "/scratch/state"),
    )
    wait_for_event(container, "progress")
    docker("stop", "--time", "120", container)

    exit_code = docker("inspect", "--format", "{{.State.ExitCode}}", container)
    assert int(exit_code) == ExitCode.INTERRUPTED
    (stopped,) = (one for one in events(container) if one.get("exit_code"))
    assert "the checkpoint is safe" in stopped["event"]
    docker("start", container)
    continued = wait_for_event(container, "continuing from a checkpoint")
    assert f"stopped at step {continued['step']} of" in stopped["event"]


def docker(*arguments: str) -> str:
    done = subprocess.run(
        ["docker", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def events(container: str) -> list[dict[str, Any]]:
    """Return what a container has logged."""
    lines = docker("logs", container).splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def wait_for_event(container: str, name: str) -> dict[str, Any]:
    deadline = time.monotonic() + SECONDS
    while not (found := [one for one in events(container) if one["event"] == name]):
        assert time.monotonic() < deadline, docker("logs", container)
        time.sleep(0.5)
    return found[0]
