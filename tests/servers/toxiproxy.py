"""A real toxiproxy for the tests, between a client and a server: a network that can be spoilt.

`python -m tests.servers.toxiproxy build` builds it beforehand.
"""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.servers.go import NoServerError, build, find
from tests.servers.minio import free_port, guarded

NAME = "toxiproxy-server"
MODULE = "github.com/Shopify/toxiproxy/v2/cmd/server@v2.12.0"
START_SECONDS = 60


@dataclass(frozen=True)
class Toxiproxy:
    """A running toxiproxy; every link through it is one server seen over one network."""

    api: str  # http://HOST:PORT

    @contextmanager
    def link(self, server: str) -> Iterator["Link"]:
        """Open a link to `HOST:PORT`, undisturbed as yet."""
        listen = f"127.0.0.1:{free_port()}"
        link = Link(self, listen.replace(":", "-"), listen)
        self.ask("POST", "/proxies", name=link.name, listen=listen, upstream=server)
        try:
            yield link
        finally:
            self.ask("DELETE", f"/proxies/{link.name}")

    def ask(self, method: str, path: str, **body: Any) -> None:
        """Send a request to the API."""
        request = urllib.request.Request(self.api + path, json.dumps(body).encode(), method=method)
        with urllib.request.urlopen(request, timeout=10):
            pass


@dataclass(frozen=True)
class Link:
    """One way to a server."""

    proxy: Toxiproxy
    name: str
    address: str  # HOST:PORT

    @contextmanager
    def spoilt(self, kind: str, direction: str = "downstream", **attributes: int) -> Iterator[None]:
        """Spoil the link for a while: one of toxiproxy's toxics, with its attributes."""
        name = f"{kind}-{direction}"
        toxics = f"/proxies/{self.name}/toxics"
        body = {"name": name, "type": kind, "stream": direction, "attributes": attributes}
        self.proxy.ask("POST", toxics, **body)
        try:
            yield
        finally:
            self.proxy.ask("DELETE", f"{toxics}/{name}")

    @contextmanager
    def down(self) -> Iterator[None]:
        """Refuse all connections for a while, and end those that are open."""
        self.proxy.ask("POST", f"/proxies/{self.name}", enabled=False)
        try:
            yield
        finally:
            self.proxy.ask("POST", f"/proxies/{self.name}", enabled=True)


@contextmanager
def running_toxiproxy() -> Iterator[Toxiproxy]:
    """Start a toxiproxy on loopback.

    Raises:
        NoServerError: when there is none, and it cannot be built.
    """
    binary = find(NAME) or build(NAME, MODULE)
    port = free_port()
    process = subprocess.Popen(
        guarded([str(binary), "-host", "127.0.0.1", "-port", str(port)]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        proxy = Toxiproxy(f"http://127.0.0.1:{port}")
        _wait_until_it_answers(proxy, process)
        yield proxy
    finally:
        process.kill()
        process.wait()


def _wait_until_it_answers(proxy: Toxiproxy, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            proxy.ask("GET", "/version")
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return
    raise NoServerError(f"toxiproxy did not start (exit code {process.poll()})")


if __name__ == "__main__":
    if sys.argv[1:] != ["build"]:
        sys.exit("usage: python -m tests.servers.toxiproxy build")
    print(find(NAME) or build(NAME, MODULE))
