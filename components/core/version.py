"""Which code runs: what decides whether an earlier result can be reused."""

import ast
import functools
import hashlib
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import components
from components.core.manifest import Code
from components.core.stage import Stage

ROOT = Path(components.__path__[0])


def code_of(stage: Stage[Any]) -> Code:
    """Identify the code of a stage.

    The digest covers the sources and templates below `components/` that the
    stage's module and its `run` module import, directly or not: changing the
    report does not make a pre-training stale.
    """
    modules = (stage.module, stage.run.partition(":")[0])
    return Code(version=_version(), commit=_commit(), digest=_digest(modules))


@functools.cache
def image(*packages: str) -> str:
    """Name the environment: the image by its digest, or the versions of a local one.

    Args:
        *packages: What a config requires beyond its stage's own packages.
    """
    if name := os.environ.get("MOCO_IMAGE"):
        return name
    versions = [f"python {sys.version_info.major}.{sys.version_info.minor}"]
    for package in ("torch", "torchvision", *packages):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return "local: " + ", ".join(versions)


@functools.cache
def _version() -> str:
    try:
        return importlib.metadata.version("moco-transfer")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


@functools.cache
def _commit() -> str | None:
    if commit := os.environ.get("MOCO_COMMIT"):
        return commit
    command = ["git", "-C", str(ROOT.parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None


@functools.cache
def _digest(modules: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for path in sorted(_reachable(modules)):
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _reachable(modules: tuple[str, ...]) -> set[Path]:
    """Follow imports of `components` modules, those inside functions too."""
    seen: set[str] = set()
    files: set[Path] = set()
    pending = list(modules)
    while pending:
        module = pending.pop()
        if module in seen:
            continue
        seen.add(module)
        path = ROOT.joinpath(*module.split(".")[1:])
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if not source.is_file():
            continue  # a name inside a module, not a module
        files.add(source)
        files.update(source.parent.glob("*.j2"))
        if "." in module:
            pending.append(module.rpartition(".")[0])
        pending += _imports(source)
    return files


def _imports(source: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(source.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "components")
