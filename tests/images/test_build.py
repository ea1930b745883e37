"""What `make images` does before and after the engine's work."""

import argparse
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from components.core.errors import MocoError, UsageError
from images.build import (
    IMAGES,
    ROOT,
    Engine,
    build,
    build_options,
    current_commit,
    digest_in,
    find_images,
    record,
)

DIGEST = f"sha256:{'a' * 64}"


def folder_of_images(folder: Path, **dockerfiles: str) -> Path:
    for name, text in dockerfiles.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "Dockerfile").write_text(text)
    return folder


def arguments(**values: object) -> argparse.Namespace:
    defaults: dict[str, object] = {
        **{"names": [], "registry": None, "push": False, "base": None, "source": None},
        **{"engine": "docker", "options": [], "detectron2": None},
    }
    return argparse.Namespace(**(defaults | values))


def test_an_image_is_built_after_those_it_builds_on(tmp_path: Path) -> None:
    folder = folder_of_images(
        tmp_path, torch="FROM scratch\n", detectron2="ARG IMAGE_TORCH\nFROM ${IMAGE_TORCH}\n"
    )

    found = find_images(folder, None, "1.2")

    assert [image.reference for image in found] == [
        "moco-transfer/torch:1.2",
        "moco-transfer/detectron2:1.2",
    ]
    assert build_options(found[1], found, {"BASE": "x"}, {}) == [
        "--build-arg",
        "IMAGE_TORCH=moco-transfer/torch:1.2",
    ]
    assert [image.name for image in find_images(folder, None, "1.2", ["detectron2"])] == [
        "detectron2"
    ]


@pytest.mark.parametrize(
    ("registry", "reference"),
    [
        ("registry.example/me", "registry.example/me/moco-transfer-torch:1.2"),
        ("localhost:5000/", "localhost:5000/moco-transfer-torch:1.2"),
    ],
)
def test_a_registry_gets_one_level_of_names(tmp_path: Path, registry: str, reference: str) -> None:
    (image,) = find_images(folder_of_images(tmp_path, torch="FROM scratch\n"), registry, "1.2")

    assert image.reference == reference
    assert image.repository == reference.removesuffix(":1.2")


def test_an_unknown_image_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    folder = folder_of_images(tmp_path, torch="FROM scratch\n")

    with pytest.raises(UsageError, match=r"no image 'tourch'; there are: torch"):
        find_images(folder, None, "1.2", ["tourch"])


def test_only_declared_and_known_arguments_are_given_and_no_secret_by_value(tmp_path: Path) -> None:
    text = "ARG BASE=debian\nFROM ${BASE}\nARG PIP_INDEX_URL\nARG COMMIT\n"
    (image,) = find_images(folder_of_images(tmp_path, torch=text), None, "1.2")
    facts = {"BASE": None, "VERSION": "1.2", "COMMIT": "abc"}
    environment = {"PIP_INDEX_URL": "https://user:canary@host.example", "UV_DEFAULT_INDEX": "x"}

    options = build_options(image, [image], facts, environment)

    assert options == ["--build-arg", "COMMIT=abc", "--build-arg", "PIP_INDEX_URL"]


def test_the_digest_is_that_of_the_repository() -> None:
    others = [f"registry.example/other@sha256:{'b' * 64}", f"me/moco-transfer-torch@{DIGEST}"]

    assert digest_in(others, "docker.io/me/moco-transfer-torch") == DIGEST
    with pytest.raises(MocoError, match="gave no digest"):
        digest_in(others, "registry.example/me/moco-transfer-torch")


def test_references_of_other_images_stay(tmp_path: Path) -> None:
    path = tmp_path / "digests.json"

    record(path, {"torch": "a/torch:1"})
    record(path, {"detectron2": "a/detectron2:1"})
    record(path, {"torch": f"a/torch@{DIGEST}"})

    assert json.loads(path.read_text()) == {
        "detectron2": "a/detectron2:1",
        "torch": f"a/torch@{DIGEST}",
    }
    assert list(tmp_path.iterdir()) == [path]


def test_an_engine_that_is_not_installed_is_named(tmp_path: Path) -> None:
    folder = folder_of_images(tmp_path, torch="FROM scratch\n")

    with pytest.raises(UsageError, match=r"needs no-such-engine.*ENGINE=podman"):
        build(arguments(engine="no-such-engine"), folder)


def test_a_daemon_that_does_not_answer_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shutil.which("docker"):
        pytest.skip("no docker command here")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")

    with pytest.raises(UsageError, match=r"does not answer:.*nobody\.sock(.|\n)*systemctl start"):
        Engine().check()


def test_a_push_without_a_place_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"REGISTRY=HOST/PATH"):
        build(arguments(push=True), folder_of_images(tmp_path, torch="FROM scratch\n"))


def test_the_commit_says_when_files_differ_from_it(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert current_commit(tmp_path) is None
    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "one")
    git("tag", "-m", "one", "v1")
    commit = git("rev-parse", "HEAD")

    assert current_commit(tmp_path) == commit
    (tmp_path / "file").write_text("two")
    assert current_commit(tmp_path) == f"{commit}-dirty"


def test_make_hands_its_variables_on() -> None:
    variables = ["REGISTRY=registry.example/me", "PUSH=1", "DETECTRON2=git+a@b", "ARGS=torch"]
    command = ["make", "-n", "images", *variables]
    environment = {"PATH": os.environ["PATH"]}

    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )

    words = done.stdout.replace("\\\n", "").split()
    assert words[1:] == [
        *("-m", "images.build", "--registry", "'registry.example/me'", "--push"),
        *("--detectron2", "'git+a@b'", "torch"),
    ]


@pytest.mark.parametrize("given", [[], ["DETECTRON2=git+file:///mirror@b"]])
def test_make_installs_detectron2_from_its_pinned_source_or_another(given: list[str]) -> None:
    pinned = (IMAGES / "detectron2" / "source").read_text().strip()
    command = ["make", "--old-file=.venv/bin/uv", "-n", "detectron2", *given]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert "requirements-detectron2.lock" in done.stdout
    (line,) = (line for line in done.stdout.splitlines() if "source=" in line)
    assignment = line.partition(";")[0].strip()
    shell = subprocess.run(
        ["sh", "-c", f"{assignment}; echo $source"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shell.stdout.strip() == (given[0].partition("=")[2] if given else pinned)
