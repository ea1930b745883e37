"""`moco rerun`: one step of a run again, or all that failed in it."""

import sys
from typing import Annotated

from cyclopts import Parameter

from components.core.errors import ExitCode, UsageError
from pipelines.backends import backend_of
from pipelines.backends.base import Request, Settings
from pipelines.cli.display import display_for
from pipelines.cli.options import ClusterValues, Jobs, RunName, StepName
from pipelines.cli.outcome import conclude
from pipelines.cli.output import say
from pipelines.cli.run import New
from pipelines.cli.submit import say_begun
from pipelines.runs.artifacts import urls_of
from pipelines.runs.cells import cells_of
from pipelines.runs.find import find_run
from pipelines.runs.folder import runs_folder
from pipelines.runs.rerun import rerun_plan
from pipelines.tables import report_steps


def rerun(
    run: RunName,
    step: StepName | None = None,
    /,
    *,
    downstream: Annotated[bool, Parameter(help="Also run every step that depends on it.")] = False,
    resume: Annotated[
        bool,
        Parameter(name="--continue", help="Go on from the last checkpoint of the earlier attempt."),
    ] = False,
    failed: Annotated[
        bool, Parameter(help="Try again all that failed, in the same run; no STEP then.")
    ] = False,
    jobs: Jobs = None,
    new: New = False,
    cluster: ClusterValues = (),
) -> int:
    """Run one step of a run again, on the same inputs, as a new run.

    It is executed where the run was: on this machine, with the code of today, or on
    the cluster. Nothing is reused for it; later runs of the recipe reuse what it makes.
    """
    source = find_run(run, runs_folder())
    backend = backend_of(source, Settings(cluster, jobs))
    if failed:
        if step or downstream or resume or new:
            raise UsageError("--failed takes the run alone: it tries all again that failed")
        backend.retry(source, display_for(sys.stderr))
        if source.state != "running":
            return conclude(source)
        say(f"{source.id} goes on with what failed: moco status {source.id}")
        return ExitCode.OK
    if step is None:
        raise UsageError(
            f"name a step of {source.id} (`moco status {source.id}` lists them), or --failed"
        )
    source.require_step(step)
    plan = rerun_plan(source, step, urls_of(backend.artifacts(source)), downstream)
    mounts = source.record.mounts
    request = Request(
        plan,
        data={name: mounts[name] for name in plan.mounts() if name in mounts},
        source=source,
        resume=step if resume else None,
        new=new,
        reuse=False,
    )
    begun = backend.start(request, display_for(sys.stderr))
    if begun.state == "running":
        say_begun(begun, backend)
        return ExitCode.OK
    code = conclude(begun)
    if code == ExitCode.OK and not report_steps(plan):
        if cells_of(begun):
            say(f"For a report with it: moco report {source.id} {begun.id}")
        else:
            say("What depends on it was not run; --downstream does that too.")
    return code
