"""`moco run` and `moco rerun`: plans on this machine, with progress, to their report."""

import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from components.core.config import not_installed
from components.core.errors import ConfigError, DataError, ExitCode, UsageError
from components.report.results import read_report
from pipelines.backends.display import display_for
from pipelines.backends.local import execute
from pipelines.backends.machine import Machine, this_machine
from pipelines.backends.reuse import ingredients_of
from pipelines.backends.sources import Sources, find_sources
from pipelines.cells import cells_of
from pipelines.cli.options import (
    ClusterValues,
    Data,
    Jobs,
    RecipeName,
    RecipeOptions,
    RunName,
    StepName,
    cluster_of,
    pairs,
)
from pipelines.cli.output import console, say, tell
from pipelines.derived import rerun_plan
from pipelines.find import find_run
from pipelines.plan import Output, Plan
from pipelines.runs import (
    DONE,
    STATE,
    Parent,
    Run,
    StepStatus,
    create_run,
    forget_run,
    runs_folder,
    unfinished_run,
    writable_runs_folder,
)
from pipelines.tables import filled_cells, report_steps
from pipelines.words import number

New = Annotated[
    bool, Parameter(help="Begin a new run even if the last one of the same plan did not finish.")
]


def run(
    recipe: RecipeName,
    /,
    *,
    options: RecipeOptions = RecipeOptions(),  # noqa: B008 - frozen
    data: Data = (),
    jobs: Jobs = None,
    new: New = False,
) -> int:
    """Run a recipe on this machine.

    What an earlier run made of the same config, inputs and code is reused. If the
    newest run of the same plan did not finish, it is continued: failed steps are
    tried again, stopped ones go on from their last checkpoint.
    """
    plan = options.plan(recipe)
    machine = _machine_for(plan, jobs)
    begun, sources = begin_run(plan, pairs("--data", data, "NAME=FOLDER"), new=new)
    return execute_and_report(begun, sources, machine)


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
    if failed:
        if step or downstream or resume or new:
            raise UsageError("--failed takes the run alone: it tries all again that failed")
        return _retry(source, jobs, cluster)
    if step is None:
        raise UsageError(
            f"name a step of {source.id} (`moco status {source.id}` lists them), or --failed"
        )
    if source.record.cluster:
        return _rerun_submitted(source, step, downstream, resume, cluster)
    plan = rerun_plan(source, step, downstream)
    machine = _machine_for(plan, jobs)
    mounts = {name: source.record.mounts[name] for name in plan.mounts()}
    states = {step: str(_state_of(source, step))} if resume else {}
    parent = Parent(run=source.id, steps=tuple(plan.steps), states=states)
    begun, sources = begin_run(plan, mounts, parent, new)
    if resume:
        hand_over(source, begun, step, sources)
    code = execute_and_report(begun, sources, machine)
    if code == ExitCode.OK and not report_steps(plan):
        if cells_of(begun):
            say(f"For a report with it: moco report {source.id} {begun.id}")
        else:
            say("What depends on it was not run; --downstream does that too.")
    return code


def _retry(run: Run, jobs: int | None, cluster: tuple[str, ...]) -> int:
    """Try again what failed in a run: the platform's own retry, or the rest of a local run."""
    if run.record.cluster:
        from pipelines.cluster.submit import retry

        retry(run, cluster_of(cluster, run=run))
        say(f"{run.id} goes on with what failed: moco status {run.id}")
        return ExitCode.OK
    machine = _machine_for(run.plan, jobs)
    sources = find_sources(run.plan, run.record.mounts, runs_folder())
    return execute_and_report(run, sources, machine)


def _rerun_submitted(
    source: Run, step: str, downstream: bool, resume: bool, values: tuple[str, ...]
) -> int:
    from pipelines.cli.submit import check, start
    from pipelines.cluster.connection import Cluster
    from pipelines.cluster.places import places
    from pipelines.cluster.submit import state_of

    known = cluster_of(values, run=source)
    # Else Kubeflow's cache would hand back what the step made before.
    place = Cluster(known.options.model_copy(update={"cache": False}))
    assert source.record.cluster is not None
    store = place.store(source.record.cluster.store)
    plan = rerun_plan(source, step, downstream, places(source, store))
    states = {step: state_of(source, step, store)} if resume else {}
    check(plan, place)
    parent = Parent(run=source.id, steps=tuple(plan.steps), states=states)
    return start(plan, place, {}, parent)


def _state_of(run: Run, step: str) -> Path:
    """Return the folder with a local step's checkpoints.

    Raises:
        UsageError: if it keeps none.
    """
    folder = run.folder / step / STATE
    if not folder.is_dir():
        raise UsageError(
            f"{step} of run {run.id} is {run.status(step).state} and keeps no checkpoint to "
            "continue from; without --continue it starts anew"
        )
    return folder


def hand_over(source: Run, begun: Run, step: str, sources: Sources) -> None:
    """Give a step of a new run the checkpoints of an earlier run's attempt.

    Raises:
        DataError: if it would not do the same work: another stage, config or data.
    """
    if begun.status(step).attempt:
        return  # it has gone on from there already
    digests = {
        name: sources.digest(one)
        for name, one in begun.plan.step(step).sources()
        if not isinstance(one, Output)
    }
    key = ingredients_of(begun.plan.step(step), digests).state_key
    if source.status(step).state_key != key:
        forget_run(begun)
        raise DataError(
            f"{step} cannot continue the attempt of run {source.id}: its config or its inputs are "
            "not the same any more; without --continue it starts anew"
        )
    shutil.copytree(_state_of(source, step), begun.folder / step / STATE, dirs_exist_ok=True)
    begun.write_status(step, StepStatus(state_key=key))


def begin_run(
    plan: Plan, folders: Mapping[str, str], parent: Parent | None = None, new: bool = False
) -> tuple[Run, Sources]:
    """Return the unfinished run of a plan, or a new one, and what it reads.

    Everything that can be known to be wrong is refused before the run exists.
    """
    runs = writable_runs_folder()
    sources = find_sources(plan, folders, runs)
    mounts = {name: str(folder) for name, folder in sources.mounts.items()}
    begun = None if new else unfinished_run(runs, plan, mounts, parent)
    if begun:
        done = sum(status.state in DONE for status in begun.statuses().values())
        tell(f"continuing {begun.id}, {done} of {number(len(plan.steps), 'step')} done")
    return begun or create_run(runs, plan, mounts, parent), sources


def execute_and_report(run: Run, sources: Sources, machine: Machine) -> int:
    """Execute a run, say how it went and what can be done, and print its report."""
    code = execute(run, sources, machine, display_for(sys.stderr))
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


def _machine_for(plan: Plan, jobs: int | None) -> Machine:
    """Return this machine, or refuse a plan that it lacks something for before a step starts."""
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs {jobs}: at least one step at a time")
    machine = this_machine(jobs)
    _need_gpus(plan, machine)
    _need_packages(plan)
    return machine


def _need_gpus(plan: Plan, machine: Machine) -> None:
    """Refuse paper-size training on a machine without GPUs: it would take years."""
    wanting = [step.name for step in plan if step.stage.resources.gpus]
    if plan.scale == "full" and wanting and not machine.gpus:
        raise UsageError(
            f"{plan.name} at full scale has {number(len(wanting), 'step')} that train on GPUs "
            f"({wanting[0]} first), and this machine has none. For the miniature on this machine, "
            f"add --scale digits; for a cluster: moco compile {plan.name} -o {plan.name}.yaml"
        )


def _need_packages(plan: Plan) -> None:
    """Refuse a plan with steps that want what this Python has not; in their images it is there."""
    lacking: dict[tuple[str, str], list[str]] = {}
    for step in plan:
        for package in not_installed(step.config).items():
            lacking.setdefault(package, []).append(step.name)
    if lacking:
        raise ConfigError(
            "\n".join(
                f"{number(len(steps), 'step')} ({steps[0]} first) cannot run without {name}, which "
                f"is not installed: {way}"
                for (name, way), steps in lacking.items()
            )
        )


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
