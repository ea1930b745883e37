"""A real container registry for the tests: one in the PATH, or one built with Go."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.go import NoServerError, build, find

MODULE = "github.com/distribution/distribution/v3/cmd/registry@v3.0.0"
START_SECONDS = 60
CONFIG = """\
version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: {address}}}
"""


@contextmanager
def running_registry() -> Iterator[str]:
    """Start a registry on loopback, without TLS, with a temporary folder; give its `HOST:PORT`.

    Raises:
        NoServerError: when there is none, saying what would help.
    """
    # Debian's package calls it docker-registry.
    binary = find("registry") or find("docker-registry") or build("registry", MODULE)
    address = f"127.0.0.1:{_free_port()}"
    with tempfile.TemporaryDirectory(prefix="moco-registry-") as folder:
        config, log = Path(folder, "config.yml"), Path(folder, "log")
        config.write_text(CONFIG.format(folder=folder, address=address))
        # Where Linux can, the server dies with us even if we are killed.
        setpriv = shutil.which("setpriv")
        guarded = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*guarded, str(binary), "serve", str(config)],
                env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        try:
            _wait_until_it_answers(f"http://{address}/v2/", process, log)
            yield address
        finally:
            process.kill()
            process.wait()


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    said = log.read_text(errors="replace")[-500:]
    raise NoServerError(f"the registry did not start (exit code {process.poll()}): {said}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
