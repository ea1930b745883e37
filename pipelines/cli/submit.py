"""`moco submit` and `moco cancel`: plans on a cluster."""

import os
import signal
from collections.abc import Mapping
from typing import Annotated

from cyclopts import Parameter

from components.core.errors import UsageError
from pipelines.cli.options import (
    ClusterValues,
    RecipeName,
    RecipeOptions,
    RunName,
    cluster_of,
    pairs,
)
from pipelines.cli.output import say, tell
from pipelines.cluster.connection import Cluster
from pipelines.derived import fill_plan
from pipelines.find import find_run
from pipelines.plan import Plan
from pipelines.runs import LOCK, Parent, Run, runs_folder, writable_runs_folder
from pipelines.tables import filled_cells
from pipelines.words import number

Claims = Annotated[
    tuple[str, ...],
    Parameter(
        name="--data",
        help="NAME=CLAIM: the persistent volume claim that holds a data set. Repeatable.",
    ),
]
Parameters = Annotated[
    tuple[str, ...],
    Parameter(
        name="--parameter",
        help="NAME=VALUE of the compiled pipeline: memory_pretrain=96Gi. Repeatable.",
    ),
]
NoCache = Annotated[
    bool,
    Parameter(name="--no-cache", help="Run steps that Kubeflow knows the outputs of."),
]
NoChecks = Annotated[
    bool, Parameter(name="--no-checks", help="Leave out what `moco doctor` checks.")
]
Watch = Annotated[bool, Parameter(help="Show the run until it ends.")]


def submit(
    recipe: RecipeName,
    /,
    *,
    options: RecipeOptions = RecipeOptions(),  # noqa: B008 - frozen
    data: Claims = (),
    cluster: ClusterValues = (),
    parameter: Parameters = (),
    fill: Annotated[
        bool, Parameter(help="Run only what cells need that no run has filled yet.")
    ] = False,
    no_cache: NoCache = False,
    no_checks: NoChecks = False,
    watch: Watch = False,
) -> int:
    """Run a recipe on a cluster.

    What can be known to be wrong is refused first, as `moco doctor RECIPE` would say it; the
    command ends once the run has begun.
    """
    plan = options.plan(recipe)
    place = cluster_of(cluster, pairs("--data", data, "NAME=CLAIM"), cache=not no_cache)
    if fill:
        plan, place = _unfilled(plan, place)
        if not plan.steps:
            say(f"Every cell of {recipe} is filled. One report over all runs: moco report RUN...")
            return 0
    parameters = pairs("--parameter", parameter, "NAME=VALUE")
    if not no_checks:
        check(plan, place, parameters)
    return start(plan, place, parameters, watch=watch)


def check(plan: Plan, place: Cluster, parameters: Mapping[str, str] | None = None) -> None:
    """Refuse what is known to fail on the cluster.

    Raises:
        MocoError: naming all that is wrong, with the way out.
    """
    from pipelines.cluster.doctor import require

    require(place, plan, parameters)


def start(
    plan: Plan,
    place: Cluster,
    parameters: Mapping[str, str],
    parent: Parent | None = None,
    watch: bool = False,
) -> int:
    """Submit a plan, say what can be done with the run, and watch it if that is wanted."""
    from pipelines.cluster.submit import submit_plan

    run = submit_plan(plan, place, writable_runs_folder(), parent=parent, parameters=parameters)
    submitted = run.record.cluster
    assert submitted is not None
    steps = number(len(plan.steps), "step")
    say(f"{run.id}: {steps}, run {submitted.run} of Kubeflow Pipelines")
    say(f"  how far it is:   moco status {run.id}")
    say(f"  what it says:    moco logs {run.id} [STEP]")
    say(f"  its artifacts:   moco pull {run.id}")
    if not watch:
        return 0
    from pipelines.cli.look import watch as follow

    return follow(run, place)


def cancel(run: RunName, /, *, cluster: ClusterValues = ()) -> None:
    """Stop a run; its finished steps stay, and the same command or a rerun goes on from there."""
    found = find_run(run, runs_folder())
    if found.record.cluster:
        from pipelines.cluster.submit import cancel as cancel_submitted

        cancel_submitted(found, cluster_of(cluster, run=found))
        say(f"{found.id} is being stopped. `moco rerun {found.id} STEP --continue` goes on with a")
        say("step from its last checkpoint.")
        return
    _interrupt(found)


def _interrupt(run: Run) -> None:
    """Ask the process that executes a run on this machine to stop."""
    if not run.is_locked():
        raise UsageError(f"run {run.id} is {run.state}: nothing executes it")
    os.kill(int((run.folder / LOCK).read_text()), signal.SIGTERM)
    say(f"{run.id} is being stopped; its steps save first. `moco run` goes on with it.")


def _unfilled(plan: Plan, place: Cluster) -> tuple[Plan, Cluster]:
    """Return what is left of a plan, to be run without Kubeflow's cache.

    The cache may point at artifacts that somebody deleted; what is whole is imported instead.
    """
    from pipelines.cluster.places import earlier_runs

    rest = fill_plan(plan, earlier_runs(plan, place))
    empty = sum(source.step in rest.steps for source in filled_cells(plan).values())
    tell(
        f"{number(empty, 'empty cell')} of {len(filled_cells(plan))}: "
        f"{len(rest.steps)} of {number(len(plan.steps), 'step')} to run"
    )
    return rest, Cluster(place.options.model_copy(update={"cache": False}))
