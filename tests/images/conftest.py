"""Fixtures of the tests with a container engine and a registry."""

import subprocess
import uuid
from collections.abc import Iterator

import pytest

from components.core.errors import UsageError
from images.build import Engine
from tests.images.pod import RESTRICTED, SECONDS, Run
from tests.images.registry import running_registry
from tests.servers.go import NoServerError


@pytest.fixture(scope="session")
def engine() -> Engine:
    """Docker, where its daemon answers."""
    docker = Engine()
    try:
        docker.check()
    except UsageError as reason:
        pytest.skip(str(reason))
    return docker


@pytest.fixture(scope="session")
def registry(engine: Engine) -> Iterator[str]:
    """Run a registry for the session; give its `HOST:PORT`."""
    try:
        with running_registry() as address:
            yield address
    except NoServerError as reason:
        pytest.skip(str(reason))


@pytest.fixture
def remove_images(engine: Engine) -> Iterator[list[str]]:
    """Take references of images that are removed when the test ends."""
    references: list[str] = []
    yield references
    if references:
        subprocess.run(["docker", "rmi", "--force", *references], capture_output=True, check=False)


@pytest.fixture
def container(image: str) -> Iterator[str]:
    """Give the name of a container that is gone after the test."""
    name = f"moco-test-{uuid.uuid4().hex[:12]}"
    yield name
    subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)


@pytest.fixture
def run(image: str, container: str) -> Run:
    """Run a command line in the image, as a pod would."""

    def run(*command: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        start = ["docker", "run", "--rm", "--name", container, *RESTRICTED, *options, image]
        return subprocess.run(
            [*start, *command], capture_output=True, text=True, timeout=SECONDS, check=False
        )

    return run
