"""Shows a run until it ends."""

import sys
import time
from datetime import UTC, datetime

from components.core.errors import ClusterError, ExitCode
from pipelines.backends.base import Backend
from pipelines.cli.display import display_for
from pipelines.runs.folder import Run
from pipelines.runs.progress import Display
from pipelines.runs.record import StepStatus
from pipelines.words import number

TOLD = ("state", "reason", "attempt")  # of a step's status


def watch(run: Run, backend: Backend) -> int:
    """Show a run until it ends; interrupted, leave it to go on.

    Args:
        run: The run.
        backend: That it is of.

    Returns:
        The run's exit code: 0, or that of the step that failed first; 75 if it was stopped.

    Raises:
        ClusterError: if the cluster cannot be asked at the start; later that is only told.
    """
    display = display_for(sys.stdout)
    if run.state != "finished":
        backend.refresh(run)
    record = run.record
    steps = number(len(record.steps), "step")
    now = datetime.now(UTC)
    since = now - ((record.ended or now) - record.created)
    display.start(f"run {run.id}: {steps}", record.steps, since)
    try:
        _show_until_the_end(run, backend, display)
    except KeyboardInterrupt:
        display.note(f"the run goes on: moco status {run.id} --watch shows it again")
        return ExitCode.INTERRUPTED
    finally:
        display.stop()
    return run.exit_code


def _show_until_the_end(run: Run, backend: Backend, display: Display) -> None:
    shown: dict[str, StepStatus] = {}
    soon, seldom = backend.pause
    told, pause = "", soon
    while True:
        changed = _show_changes(run, display, shown)
        if run.state != "running":
            return
        pause = soon if changed else min(seldom, pause * 1.5)
        _wait(display, pause)
        try:
            for step, event in backend.progress(run):
                display.progressed(step, event)
            backend.refresh(run)
            told = ""
        except ClusterError as error:
            if str(error) != told:
                told = str(error)
                display.note(f"{told}; asking again")


def _show_changes(run: Run, display: Display, shown: dict[str, StepStatus]) -> bool:
    """Tell the display which steps have another state or reason than was shown last."""
    changed = False
    for step, status in run.statuses().items():
        before = shown.get(step, StepStatus())
        if any(getattr(status, name) != getattr(before, name) for name in TOLD):
            display.changed(step, status)
            changed = True
        shown[step] = status
    return changed


def _wait(display: Display, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        display.tick()
        time.sleep(min(left, 0.2))
