"""Images that are really built, pushed and pulled: tiny ones, of files alone."""

import argparse
import json
import subprocess
import tarfile
import urllib.request
from pathlib import Path

import pytest

from components.core.errors import MocoError
from images.build import ROOT, Engine, build, current_commit, current_version
from pipelines.backends.kubeflow.images import DIGEST
from tests.images.test_build import arguments, folder_of_images

# Files of the repository stand in for a system's: the build's context is the same for every image.
TINY = """\
FROM scratch
COPY LICENSE /usr/share/doc/
ARG VERSION
ARG COMMIT
LABEL org.opencontainers.image.version="$VERSION" org.opencontainers.image.revision="$COMMIT"
"""
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.fixture(autouse=True)
def classic_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")  # the other builder is a plugin that may be missing


def built(folder: Path, remove: list[str], **values: object) -> dict[str, str]:
    """Build a folder's images, and return what was recorded."""
    options: argparse.Namespace = arguments(**values)
    registry = f"{options.registry}/moco-transfer-" if options.registry else "moco-transfer/"
    for one in folder.iterdir():
        remove.append(f"{registry}{one.name}:{current_version(ROOT)}")
    build(options, folder)
    recorded: dict[str, str] = json.loads((folder / "digests.json").read_text())
    return recorded


def test_an_image_is_tagged_labelled_and_recorded(
    tmp_path: Path, engine: Engine, remove_images: list[str]
) -> None:
    folder = folder_of_images(tmp_path, tiny_test=TINY)

    source = "https://host.example/me/moco-transfer"

    recorded = built(folder, remove_images, source=source)

    reference = f"moco-transfer/tiny_test:{current_version(ROOT)}"
    assert recorded == {"tiny_test": reference}
    facts = engine.inspect(reference)
    assert facts["Config"]["Labels"] == {
        "org.opencontainers.image.version": current_version(ROOT),
        "org.opencontainers.image.revision": current_commit(ROOT) or "",
        "org.opencontainers.image.source": source,
    }
    bill = json.loads((folder / "tiny_test.cdx.json").read_text())
    assert bill["metadata"]["component"]["name"] == "moco-transfer/tiny_test"
    assert bill["metadata"]["component"]["hashes"][0]["content"] in facts["Id"]
    assert bill["components"] == []


def test_the_bill_lists_what_the_image_holds(
    tmp_path: Path, engine: Engine, remove_images: list[str]
) -> None:
    metadata = tmp_path / "opt/x/tiny-2.1.dist-info/METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.4\nName: Tiny_Thing\nVersion: 2.1\n")
    archive = tmp_path / "system.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(tmp_path / "opt", "opt")
    base = "moco-transfer/tiny_base_test:1"
    subprocess.run(["docker", "import", str(archive), base], capture_output=True, check=True)
    remove_images.append(base)
    folder = folder_of_images(tmp_path / "images", tiny_test=f"FROM {base}\nCOPY LICENSE /\n")

    built(folder, remove_images)

    (component,) = json.loads((folder / "tiny_test.cdx.json").read_text())["components"]
    assert component["purl"] == "pkg:pypi/tiny-thing@2.1"
    left = subprocess.run(
        ["docker", "ps", "-aq", "--filter", f"ancestor={base}"], capture_output=True, check=True
    )
    assert left.stdout == b""


def test_a_pushed_image_is_recorded_by_the_registrys_digest(
    tmp_path: Path, registry: str, remove_images: list[str]
) -> None:
    folder = folder_of_images(
        tmp_path, tiny_test=TINY, above_test="ARG IMAGE_TINY_TEST\nFROM ${IMAGE_TINY_TEST}\n"
    )

    recorded = built(folder, remove_images, registry=f"{registry}/me", push=True)

    for name in ("tiny_test", "above_test"):
        repository, _, digest = recorded[name].partition("@")
        assert DIGEST.search(recorded[name])
        assert repository == f"{registry}/me/moco-transfer-{name}"
        url = f"http://{registry}/v2/me/moco-transfer-{name}/manifests/{digest}"
        request = urllib.request.Request(url, headers={"Accept": MANIFEST})
        with urllib.request.urlopen(request, timeout=30) as answer:
            config = json.load(answer)["config"]["digest"]
        bill = json.loads((folder / f"{name}.cdx.json").read_text())
        assert bill["metadata"]["component"]["hashes"][0]["content"] in config
        assert bill["metadata"]["component"]["bom-ref"] == recorded[name]


def test_what_cannot_be_pushed_is_not_recorded(
    tmp_path: Path, engine: Engine, remove_images: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of_images(tmp_path, tiny_test=TINY)
    nobody = "127.0.0.1:9/me"  # no server listens there

    with pytest.raises(MocoError, match=r"was not pushed.*docker login 127\.0\.0\.1:9"):
        built(folder, remove_images, registry=nobody, push=True)

    assert "connection refused" in capfd.readouterr().err
    assert not (folder / "digests.json").exists()


def test_a_build_that_fails_is_an_error(tmp_path: Path, engine: Engine) -> None:
    folder = folder_of_images(tmp_path, tiny_test="FROM scratch\nCOPY no-such-file /\n")

    with pytest.raises(MocoError, match=r"moco-transfer/tiny_test:.* was not built"):
        built(folder, [])

    assert not (folder / "digests.json").exists()


def test_nothing_but_sources_reaches_a_build(
    tmp_path: Path, engine: Engine, remove_images: list[str]
) -> None:
    folder = folder_of_images(tmp_path, tiny_test="FROM scratch\nCOPY . /\n")
    built(folder, remove_images)
    container = subprocess.run(
        ["docker", "create", remove_images[0], "none"], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        with (
            subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export,
            tarfile.open(fileobj=export.stdout, mode="r|") as archive,
        ):
            names = [member.name for member in archive if member.isfile()]
    finally:
        subprocess.run(["docker", "rm", "-f", container], capture_output=True, check=True)

    made_by_docker = {".dockerenv", "dev", "etc"}
    assert {name.partition("/")[0] for name in names} - made_by_docker == {
        *("LICENSE", "README.md", "pyproject.toml", "components", "images", "pipelines"),
        *(lock.name for lock in ROOT.glob("requirements-*.lock")),
    }
    # Where detectron2 comes from, which its image is built with.
    assert [name for name in names if name.startswith("images/")] == ["images/detectron2/source"]
    assert not [name for name in names if "__pycache__" in name]
