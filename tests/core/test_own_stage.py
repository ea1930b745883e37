"""A stage of one's own: a folder on Python's path, and no other file knows of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DECLARATION = """\
from components.core.config import Config
from components.core.stage import Port, Stage


class ShoutConfig(Config):
    text: str
    \'\'\'What is shouted.\'\'\'


STAGE = Stage(
    name="shout",
    summary="Say it louder.",
    config=ShoutConfig,
    inputs={},
    outputs={"model": Port("Model", "what was said")},
    run="components.shout.work:run",
)
"""
WORK = """\
def run(job):
    (job.output("model") / "text").write_text(job.config.text.upper())
"""
MAIN = """\
from components.core.main import main

main("components.shout")
"""
NAMES = "from components.core.stage import stage_names; print(*stage_names())"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder for Python's path, with a stage in it."""
    folder = tmp_path / "path/components/shout"
    folder.mkdir(parents=True)
    for name, text in (("__init__", DECLARATION), ("work", WORK), ("__main__", MAIN)):
        (folder / f"{name}.py").write_text(text)
    return tmp_path / "path"


def run(path: Path, *argv: str) -> "subprocess.CompletedProcess[str]":
    """Run Python where the stage can be found."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(path)])}
    command = [sys.executable, "-P", *argv]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def shout(path: Path, output: Path) -> str:
    """Run the stage, and return the digest of its code."""
    config = json.dumps({"text": "hello"})
    words = ("--config", config, "--output.model", str(output))
    done = run(path, "-m", "components.shout", *words)
    assert done.returncode == 0, done.stderr
    digest = json.loads((output / "manifest.json").read_text())["code"]["digest"]
    assert isinstance(digest, str)
    return digest


def test_it_is_named_runs_and_is_stale_when_its_code_changes(path: Path, tmp_path: Path) -> None:
    names = run(path, "-c", NAMES).stdout.split()
    assert {"shout", "convert", "detection.coco"} < {*names}

    before = shout(path, tmp_path / "first")
    assert (tmp_path / "first/text").read_text() == "HELLO"

    work = path / "components/shout/work.py"
    work.write_text(WORK + "# a remark\n")
    assert shout(path, tmp_path / "second") == before
    work.write_text(WORK + "LOUDER = True\n")
    assert shout(path, tmp_path / "third") != before


def test_a_package_of_the_same_name_is_not_looked_into(path: Path) -> None:
    """As another copy of the project is, installed beside the one that runs."""
    (path / "components/__init__.py").touch()
    names = run(path, "-c", NAMES).stdout.split()
    assert "shout" not in names
    assert "convert" in names
