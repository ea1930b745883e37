"""Fixtures of the tests with a container engine and a registry."""

import subprocess
from collections.abc import Iterator

import pytest

from components.core.errors import UsageError
from images.build import Engine
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
