"""`moco report`: one report over what several runs measured."""

import shutil
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from components.core.errors import ExitCode, MocoError, NotWritableError, UsageError
from pipelines.backends import backend_of, open_backend
from pipelines.backends.base import Request, Settings
from pipelines.cli.display import display_for
from pipelines.cli.options import RunName
from pipelines.cli.outcome import conclude
from pipelines.cli.output import say, tell
from pipelines.runs.find import find_run
from pipelines.runs.folder import runs_folder
from pipelines.runs.merge import report_plan
from pipelines.runs.pull import ensure_metrics
from pipelines.runs.under_way import UnderWay, find_under_way


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
    count as further trials. What submitted runs measured is pulled first. Of a training that runs
    the curves are drawn, on a cluster up to its last checkpoint.
    """
    if not runs:
        raise UsageError(
            "name at least one run: moco report RUN [RUN ...]; `moco status` lists them"
        )
    if output and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise NotWritableError(f"--output {output} exists and is not empty; name another folder")
    named = {run.id: run for run in (find_run(name, runs_folder()) for name in runs)}
    running: list[UnderWay] = []
    for source in named.values():
        backend = backend_of(source, Settings())
        if source.state == "running":
            try:
                backend.refresh(source)
                running += find_under_way(source, backend.history)
            except MocoError as error:
                tell(f"what runs of {source.id} is left out: {error}")
        if complaint := ensure_metrics(source, backend):
            tell(complaint)
    plan = report_plan(list(named.values()), running)
    run = open_backend("local", Settings()).start(Request(plan), display_for(sys.stderr))
    code = conclude(run)
    if output and code == ExitCode.OK:
        shutil.copytree(run.artifact("report", "report"), output, dirs_exist_ok=True)
        say(f"Copied to {output}")
    return code
