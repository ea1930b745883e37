"""Builds the images of this folder, pushes them, and writes what they are: digests and SBOMs.

`make images` runs it; nothing but Python and a container engine is needed.
"""

import argparse
import graphlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core.errors import MocoError, UsageError
from images.sbom import Subject, read_inventory, software_bill

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "images"
PREFIX = "moco-transfer"

# Where a build takes packages from, if it is not where pip and uv look first. They are handed on by
# name: a value may hold a password.
INDEX_VARIABLES = (
    "PIP_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "UV_DEFAULT_INDEX",
    "UV_INSECURE_HOST",
)


@dataclass(frozen=True)
class Image:
    """An image to build.

    Attributes:
        name: Its folder's name, which stages declare.
        reference: What it is tagged with, `REPOSITORY:VERSION`.
        dockerfile: Its recipe.
        needs: Names of the images that it builds on.
    """

    name: str
    reference: str
    dockerfile: Path
    needs: frozenset[str]

    @property
    def repository(self) -> str:
        """The reference without its tag."""
        return self.reference.rpartition(":")[0]


@dataclass(frozen=True)
class Engine:
    """Docker, or Podman, whose commands are the same."""

    command: str = "docker"

    def check(self) -> None:
        """Make sure that images can be built here.

        Raises:
            UsageError: if the engine is missing or does not answer.
        """
        if not shutil.which(self.command):
            raise UsageError(
                f"building images needs {self.command}, which is not in the PATH: install Docker, "
                "or Podman and say ENGINE=podman"
            )
        done = self._run("version", check=False)
        if done.returncode:
            raise UsageError(
                f"{self.command} does not answer: {done.stderr.strip()}\nIf it is Docker, start "
                "its service (`sudo systemctl start docker`) and make sure that you may use it "
                "(`sudo usermod -aG docker $USER`, then log in again)"
            )

    def build(self, dockerfile: Path, reference: str, options: Iterable[str]) -> None:
        """Build an image from the repository's root and tag it; its output goes to the screen."""
        command = [self.command, "build", "--file", str(dockerfile), "--tag", reference, *options]
        if subprocess.run([*command, str(ROOT)], check=False).returncode:  # noqa: S603
            raise MocoError(f"{reference} was not built; {self.command} says why above")

    def push(self, reference: str) -> str:
        """Push an image; return its digest, `sha256:…`."""
        with tempfile.TemporaryDirectory() as folder:
            digest = Path(folder, "digest")
            # Docker keeps the digest that the registry gave; Podman's own differs from it.
            podman = "podman" in Path(self.command).name
            options = ["--digestfile", str(digest)] if podman else []
            command = [self.command, "push", *options, reference]
            if subprocess.run(command, check=False).returncode:  # noqa: S603
                server = reference.partition("/")[0]
                raise MocoError(
                    f"{reference} was not pushed; {self.command} says why above. If it is not "
                    f"allowed: {self.command} login {server}"
                )
            if podman:
                return digest.read_text("utf-8").strip()
        return digest_in(self.inspect(reference)["RepoDigests"], reference.rpartition(":")[0])

    def inspect(self, reference: str) -> dict[str, Any]:
        """Return what the engine knows of an image."""
        (facts,) = json.loads(self._run("image", "inspect", reference).stdout)
        return dict(facts)

    def bill(self, reference: str, subject: Subject) -> dict[str, Any]:
        """List what an image holds, from its files: nothing of it is executed."""
        # A container that is not started needs a command all the same.
        container = self._run("create", reference, "none").stdout.strip()
        try:
            with subprocess.Popen(  # noqa: S603
                [self.command, "export", container], stdout=subprocess.PIPE
            ) as export:
                assert export.stdout is not None
                inventory = read_inventory(export.stdout)
            if export.returncode:
                raise MocoError(f"{reference}: its files cannot be read; see above")
        finally:
            self._run("rm", "--force", container, check=False)
        return software_bill(subject, inventory)

    def _run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(  # noqa: S603
            [self.command, *arguments], capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            raise MocoError(f"{self.command} {' '.join(arguments)}: {done.stderr.strip()}")
        return done


def find_images(
    folder: Path, registry: str | None, version: str, names: Sequence[str] = ()
) -> list[Image]:
    """Find the images of a folder, those first that others build on.

    An image builds on another whose reference it takes as a build argument: `ARG IMAGE_TORCH`.

    Args:
        folder: Folder with a folder for each image, a Dockerfile in it.
        registry: Where they will be pushed, `HOST/PATH`.
        version: Their tag.
        names: Only these; all by default.

    Raises:
        UsageError: if there is no image of a name.
    """
    found: dict[str, Image] = {}
    for dockerfile in sorted(folder.glob("*/Dockerfile")):
        name = dockerfile.parent.name
        # One level of names is what every registry takes.
        repository = f"{registry.rstrip('/')}/{PREFIX}-{name}" if registry else f"{PREFIX}/{name}"
        needs = re.findall(r"^ARG IMAGE_(\w+)$", dockerfile.read_text("utf-8"), re.MULTILINE)
        found[name] = Image(
            name, f"{repository}:{version}", dockerfile, frozenset(n.lower() for n in needs)
        )
    for name in names:
        if name not in found:
            raise UsageError(f"there is no image {name!r}; there are: {', '.join(found)}")
    order = graphlib.TopologicalSorter({name: image.needs for name, image in found.items()})
    return [found[name] for name in order.static_order() if not names or name in names]


def build_options(
    image: Image,
    images: Iterable[Image],
    facts: Mapping[str, str | None],
    environment: Mapping[str, str],
) -> list[str]:
    """Return the build arguments of an image: those that its Dockerfile declares, and are known."""
    declared = re.findall(r"^ARG (\w+)", image.dockerfile.read_text("utf-8"), re.MULTILINE)
    known = {name: value for name, value in facts.items() if value}
    known |= {f"IMAGE_{one.name.upper()}": one.reference for one in images}
    options = [f"{name}={value}" for name, value in known.items() if name in declared]
    options += [n for n in INDEX_VARIABLES if n in declared and environment.get(n)]
    return [part for option in options for part in ("--build-arg", option)]


def digest_in(repo_digests: Iterable[str], repository: str) -> str:
    """Find the digest that a repository gave to an image.

    Args:
        repo_digests: `REPOSITORY@sha256:…` of every repository that has the image.
        repository: The one that it was pushed to.
    """
    for one in repo_digests:
        name, _, digest = one.partition("@")
        if name == repository.removeprefix("docker.io/"):  # Docker leaves its own registry out
            return digest
    raise MocoError(f"{repository} gave no digest to the image that was pushed")


def record(path: Path, references: Mapping[str, str]) -> None:
    """Write the references of images into a file of them; others that stand there stay."""
    known = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    write_json(path, dict(sorted({**known, **references}.items())))


def write_json(path: Path, document: Any) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
    temporary.replace(path)


def current_commit(root: Path) -> str | None:
    """Return the commit of a checkout, `-dirty` when files differ from it; None outside of git."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        # A tag's name is no commit.
        done = subprocess.run([*command, "--exclude=*"], capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def current_version(root: Path) -> str:
    """Return the version that a checkout's pyproject.toml states."""
    version: str = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    return version


def build(arguments: argparse.Namespace, folder: Path = IMAGES) -> None:
    """Build images, push them where asked to, and write their digests and bills beside them.

    Raises:
        UsageError: if there is no such image, or no engine.
        MocoError: if a build or a push fails; what was finished before is recorded.
    """
    if arguments.push and not arguments.registry:
        raise UsageError("PUSH=1 needs to know where to: REGISTRY=HOST/PATH")
    version = current_version(ROOT)
    everything = find_images(folder, arguments.registry, version)
    chosen = find_images(folder, arguments.registry, version, arguments.names)
    engine = Engine(arguments.engine)
    engine.check()
    facts = {
        "BASE": arguments.base,
        "DETECTRON2": arguments.detectron2,
        "VERSION": version,
        "COMMIT": current_commit(ROOT),
    }
    given = list(arguments.options)
    if arguments.source:
        given += ["--label", f"org.opencontainers.image.source={arguments.source}"]
    for image in chosen:
        options = build_options(image, everything, facts, os.environ)
        engine.build(image.dockerfile, image.reference, [*options, *given])
        digest = engine.push(image.reference) if arguments.push else None
        reference = f"{image.repository}@{digest}" if digest else image.reference
        identity = engine.inspect(image.reference)["Id"].removeprefix("sha256:")
        subject = Subject(image.repository, version, reference, identity)
        bill = folder / f"{image.name}.cdx.json"
        write_json(bill, engine.bill(image.reference, subject))
        record(folder / "digests.json", {image.name: reference})
        print(f"{image.name}: {reference} (image id {identity[:12]}), its contents: {bill}")  # noqa: T201
    if not arguments.push:
        print(  # noqa: T201
            "A digest comes with a push (REGISTRY=HOST/PATH PUSH=1): full-scale runs ask for it."
        )


def main() -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m images.build", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="folder of images/; all without")
    parser.add_argument("--registry", metavar="HOST/PATH", help="where the images are pushed to")
    parser.add_argument("--push", action="store_true", help="push them, and record their digests")
    parser.add_argument("--base", metavar="REFERENCE", help="image of Debian with Python 3.11")
    parser.add_argument("--source", metavar="URL", help="of the repository, for the images' labels")
    parser.add_argument(
        "--detectron2", metavar="git+URL@COMMIT", help="where detectron2 comes from, if not GitHub"
    )
    parser.add_argument("--engine", default="docker", help="docker (default), or podman")
    parser.add_argument(
        "--option",
        dest="options",
        action="append",
        default=[],
        metavar="OPTION",
        help="of the engine's build command, as --option=--network=host; repeatable",
    )
    try:
        build(parser.parse_args())
    except MocoError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
