"""A network that can be spoilt."""

from collections.abc import Iterator

import pytest

from tests.servers.go import NoServerError
from tests.servers.toxiproxy import Toxiproxy, running_toxiproxy


@pytest.fixture(scope="session")
def toxiproxy() -> Iterator[Toxiproxy]:
    """Run a toxiproxy for the session, or skip with the reason."""
    try:
        with running_toxiproxy() as proxy:
            yield proxy
    except NoServerError as reason:
        pytest.skip(str(reason))
