"""Says what came of a run that this command began or went on with."""

import shlex
import sys
from pathlib import Path

from components.core.errors import ExitCode
from components.report.results import read_report
from pipelines.cli.output import console, say, tell
from pipelines.runs.folder import Run
from pipelines.runs.record import DONE
from pipelines.tables import filled_cells, report_steps
from pipelines.words import number


def conclude(run: Run) -> int:
    """Say how a run went that is over and what can be done, print its report, return its code."""
    code = run.exit_code
    if code == ExitCode.INTERRUPTED:
        tell(f"run {run.id} was interrupted; the same command continues it:\n  {_this_command()}")
        return code
    for name, status in run.statuses().items():
        if status.state == "failed":
            tell(f"{name} failed; all it said: moco logs {run.id} {name}")
    if code:
        tell(f"The same command tries what failed again and keeps the rest:\n  {_this_command()}")
    for step in report_steps(run.plan):
        if run.status(step.name).state in DONE:
            _print_report(run, step.name)
    return code


def _print_report(run: Run, step: str) -> None:
    from components.report.text import print_summary

    folder = run.artifact(step, "report")
    left_out = run.status(step).left_out
    out = console()
    out.print()
    print_summary(read_report(folder), out)
    if left_out:
        out.print(f"Without {number(len(left_out), 'cell')} whose steps did not finish.")
    out.print(f"Report: {_near(folder / 'index.html')}", soft_wrap=True)
    cell = next(iter(filled_cells(run.plan)), None)
    if cell:
        say(f"Where a number comes from: moco explain {run.id} {cell.replace('__', '/')}")


def _near(path: Path) -> Path:
    """Write a path as it is seen from the working directory, if it is below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _this_command() -> str:
    return "moco " + shlex.join(argument for argument in sys.argv[1:] if argument != "--new")
