"""A real Helm for the tests: a given one, one in the PATH, or one built with Go.

`python -m tests.servers.helm build` builds it beforehand.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers.go import NoServerError, build, find

MODULE = "helm.sh/helm/v4/cmd/helm@v4.3.1"
COMMAND_SECONDS = 300

_BINARY = "MOCO_TEST_HELM"


class HelmFailed(Exception):  # noqa: N818 - the name of the fact
    """Helm exited with an error."""


@dataclass(frozen=True)
class Helm:
    """The command line of Helm.

    Attributes:
        binary: The executable.
        kubeconfig: Of the cluster to work on; without it only local commands work.
        namespace: To work in.
    """

    binary: Path
    kubeconfig: Path | None = None
    namespace: str | None = None

    def __call__(self, *arguments: str | Path) -> str:
        """Run a command, and return what it printed.

        Raises:
            HelmFailed: with what it printed.
        """
        done = subprocess.run(
            [self.binary, *arguments, *self._place()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if done.returncode:
            raise HelmFailed(f"helm {arguments[0]} exited with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def _place(self) -> Sequence[str]:
        place: list[str] = []
        if self.kubeconfig:
            place += ["--kubeconfig", str(self.kubeconfig)]
        if self.namespace:
            place += ["--namespace", self.namespace]
        return place


@pytest.fixture(scope="session")
def helm() -> Helm:
    """Give a Helm without a cluster, or skip with the reason."""
    try:
        return Helm(find_binary())
    except NoServerError as reason:
        pytest.skip(str(reason))


def find_binary() -> Path:
    """Look for a given Helm, in the cache and in the PATH; build one where there is none.

    Raises:
        NoServerError: if the given one does not exist, or none can be built.
    """
    given = os.environ.get(_BINARY)
    if given and not Path(given).is_file():
        raise NoServerError(f"{_BINARY} names {given}, which does not exist")
    return Path(given) if given else find("helm") or build("helm", MODULE)


if __name__ == "__main__":
    if sys.argv[1:] != ["build"]:
        sys.exit("usage: python -m tests.servers.helm build")
    print(find_binary())
