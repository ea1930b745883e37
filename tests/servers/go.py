"""Builds servers for the tests with Go, once, into a folder that outlives them."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

BINARIES = Path.home() / ".cache" / "moco-transfer" / "bin"
BUILD_SECONDS = 1800


class NoServerError(Exception):
    """There is no such server here, and none can be built."""


def find(name: str) -> Path | None:
    """Look for a binary in the cache and in the PATH."""
    cached = BINARIES / name
    if cached.is_file():
        return cached
    found = shutil.which(name)
    return Path(found) if found else None


def build(name: str, module: str) -> Path:
    """Build the program of a Go module into the cache; of several processes one builds.

    Raises:
        NoServerError: when Go is missing or the build fails.
    """
    go = shutil.which("go")
    if not go:
        raise NoServerError(f"no {name}: install it, or install Go")
    BINARIES.mkdir(parents=True, exist_ok=True)
    binary = BINARIES / name
    with (BINARIES / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.is_file():
            with tempfile.TemporaryDirectory(dir=BINARIES) as folder:
                done = subprocess.run(
                    [go, "install", "-trimpath", module],
                    env={**os.environ, "GOBIN": folder, "CGO_ENABLED": "0"},
                    capture_output=True,
                    text=True,
                    timeout=BUILD_SECONDS,
                    check=False,
                )
                built = list(Path(folder).iterdir())
                if done.returncode or len(built) != 1:
                    raise NoServerError(f"{name} was not built: {done.stderr.strip()[-500:]}")
                built[0].replace(binary)
    return binary
