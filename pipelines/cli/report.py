"""`moco report`: one report over what several runs measured."""

import shutil
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from components.core.errors import ExitCode, NotWritableError, UsageError
from pipelines.backends.machine import this_machine
from pipelines.cli.options import RunName
from pipelines.cli.output import say, tell
from pipelines.cli.run import begin_run, execute_and_report
from pipelines.cluster.pull import ensure_metrics
from pipelines.derived import report_plan
from pipelines.find import find_run
from pipelines.runs import runs_folder


def report(
    *runs: RunName,
    output: Annotated[
        Path | None,
        Parameter(name=("--output", "-o"), help="Folder that gets a copy of the report."),
    ] = None,
) -> int:
    """Make one report over several runs, of the same scale.

    The same trial measured twice (the same stage, config and inputs) counts once,
    as the newest run has it. Measurements of one cell that differ in any of these
    count as further trials. What submitted runs measured is pulled first.
    """
    if not runs:
        raise UsageError(
            "name at least one run: moco report RUN [RUN ...]; `moco status` lists them"
        )
    if output and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise NotWritableError(f"--output {output} exists and is not empty; name another folder")
    found = {run.id: run for run in (find_run(name, runs_folder()) for name in runs)}
    for one in found.values():
        if complaint := ensure_metrics(one):
            tell(complaint)
    plan = report_plan(list(found.values()))
    run, sources = begin_run(plan, {})
    code = execute_and_report(run, sources, this_machine())
    if output and code == ExitCode.OK:
        shutil.copytree(run.artifact("report", "report"), output, dirs_exist_ok=True)
        say(f"Copied to {output}")
    return code
