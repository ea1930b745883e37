"""Hears of several runs at once, whatever backends they are of."""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue

from components.core.errors import MocoError
from pipelines.backends import open_backend
from pipelines.backends.base import Backend, Settings
from pipelines.runs.folder import Run

SECONDS = 10.0  # that all runs of a list have to be heard of
AT_ONCE = 4  # runs of a list that are asked for at a time


def refresh_all(
    runs: Sequence[Run], settings: Settings, seconds: float = SECONDS
) -> dict[Run, str]:
    """Refresh several runs at once, within a time.

    Args:
        runs: The runs.
        settings: What the user says of where they run.
        seconds: After which those that have not been heard of are given up.

    Returns:
        The runs that could not be refreshed, and why.
    """
    failures: dict[Run, str] = {}
    backends: dict[str, Backend] = {}
    for run in runs:
        name = run.record.backend
        try:
            backends[name] = backends.get(name) or open_backend(name, settings)
        except MocoError as error:
            failures[run] = str(error)
    todo: SimpleQueue[Run] = SimpleQueue()
    for run in runs:
        if run not in failures:
            failures[run] = f"no answer within {seconds:.0f} s"
            todo.put(run)

    def work() -> None:
        with suppress(Empty):
            while True:
                run = todo.get_nowait()
                try:
                    backends[run.record.backend].refresh(run)
                except MocoError as error:
                    failures[run] = str(error)
                else:
                    del failures[run]

    # Daemons: the command must not wait for a server that does not answer.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(AT_ONCE, len(runs)))]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return dict(failures)
