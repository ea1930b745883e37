"""Tells whether runs can be started from here.

    python -m pipelines.backends.kubeflow.next_parts.probe CONFIG

The config is that of `NextPartsConfig`. Nothing is started: whoever may list runs may start them.
"""

import sys
from collections.abc import Sequence

from components.core.config import read_config
from components.core.errors import ExitCode, MocoError, UsageError
from components.core.store.probe import answer
from pipelines.backends.kubeflow.connection import Cluster
from pipelines.backends.kubeflow.next_parts import NextPartsConfig
from pipelines.backends.kubeflow.server import Server


def main(arguments: Sequence[str]) -> int:
    """Ask for runs, print one JSON line with `ok` and `words`, and return the exit code."""
    try:
        if len(arguments) != 1:
            raise UsageError(f"usage: python -m {__spec__.name} CONFIG")
        cluster = Cluster(read_config(NextPartsConfig, arguments[0]).options)
        Server(cluster).named("none")
    except MocoError as error:
        return answer(error.exit_code, str(error))
    return answer(ExitCode.OK, f"{cluster.server_name} shows runs")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
