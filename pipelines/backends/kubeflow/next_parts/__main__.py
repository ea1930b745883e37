import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Never

from components.core import log
from components.core.config import read_config
from components.core.errors import ClusterError, ExitCode, Interrupted, StoreError, UsageError
from components.core.main import guarded
from components.core.store import NotAllowed
from pipelines.backends.kubeflow.advance import Advance
from pipelines.backends.kubeflow.connection import Cluster, NotAllowedError
from pipelines.backends.kubeflow.next_parts import MODULE, NextPartsConfig
from pipelines.runs.bucket import open_bucket_run

FIRST_SECONDS = 600.0  # for the first answer: a server that was never reached does not come back
REFUSALS = 3  # looks in a row that may be refused

HELP = f"""Begin the parts of a run that come after the one this stands in, when they can begin.

usage: python -m {MODULE} --config JSON|@FILE --run URL

The config is that of `NextPartsConfig`, the URL that of the run's folder. Without one there is
nothing to follow. Broken off at any moment, the same command goes on.
"""
logger = log.get_logger(MODULE)


def main(arguments: Sequence[str]) -> int:
    """Follow one part; return the exit code."""
    log.configure()
    if not arguments or {"-h", "--help"} & {*arguments[:1]}:
        sys.stdout.write(HELP)
        return ExitCode.OK if arguments else ExitCode.USAGE

    def work() -> None:
        signal.signal(signal.SIGTERM, _interrupt)
        follow(*read_command(arguments))

    return guarded(work)


def read_command(arguments: Sequence[str]) -> tuple[NextPartsConfig, str]:
    """Read the command line.

    Raises:
        UsageError, ConfigError: naming what is wrong.
    """
    given = dict(zip(arguments[::2], arguments[1::2], strict=False))
    if given.keys() != {"--config", "--run"} or len(arguments) != 4:
        raise UsageError(f"{' '.join(arguments)}: expected --config JSON --run URL")
    return read_config(NextPartsConfig, given["--config"]), given["--run"]


def follow(config: NextPartsConfig, url: str) -> None:
    """Begin what can begin, until every step of the part is over.

    Raises:
        ClusterError, StoreError: if server or store refuse, or were away for too long.
    """
    if not url:
        logger.info("this part was started by itself: nothing follows")
        return
    cluster = Cluster(config.options)
    end = time.monotonic() + FIRST_SECONDS
    refusals = 0
    advance: Advance | None = None
    with tempfile.TemporaryDirectory() as folder:
        while True:
            try:
                if advance is None:
                    run = open_bucket_run(url, cluster.store(url), Path(folder))
                    advance = Advance(run, cluster, logger.info)
                look = advance.begin(config.part)
            except (ClusterError, StoreError) as error:
                # Rights do not come back by themselves, unless a server has only just begun.
                refusals += isinstance(error, NotAllowedError | NotAllowed)
                if time.monotonic() > end or refusals > REFUSALS:
                    raise
                logger.warning("looking again later", reason=str(error))
            else:
                end = time.monotonic() + config.hours * 3600
                refusals = 0
                part, begun = look.places.parts[config.part]
                mine = {*part.steps} - {*(begun.left_out if begun else ())}
                if begun and mine <= look.settled:
                    return
            time.sleep(config.seconds)


def _interrupt(number: int, _: Any) -> Never:
    raise Interrupted(f"stopped by {signal.Signals(number).name}; the same command goes on")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
