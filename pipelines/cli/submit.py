"""`moco submit`: a recipe on a cluster."""

import sys
from typing import Annotated

from cyclopts import Parameter, validators

from components.core.errors import ExitCode
from pipelines.backends import open_backend
from pipelines.backends.base import Backend, Request, Settings
from pipelines.cli.display import display_for
from pipelines.cli.options import (
    BackendName,
    Claims,
    ClusterValues,
    RecipeName,
    RecipeOptions,
    mounted,
    pairs,
)
from pipelines.cli.outcome import conclude
from pipelines.cli.output import say, tell
from pipelines.cli.watch import watch as watch_run
from pipelines.plan import Plan
from pipelines.runs.artifacts import urls_of
from pipelines.runs.fill import fill_plan
from pipelines.runs.folder import Run
from pipelines.tables import filled_cells
from pipelines.words import number

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
Parallel = Annotated[
    int | None,
    Parameter(
        validator=validators.Number(gte=1), help="Most steps on GPUs that run at the same time."
    ),
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
    parallel: Parallel = None,
    no_cache: NoCache = False,
    no_checks: NoChecks = False,
    watch: Watch = False,
    backend: BackendName = "kubeflow",
) -> int:
    """Run a recipe on a cluster.

    What can be known to be wrong is refused first, as `moco doctor RECIPE` would say it; the
    command ends once the run has begun.
    """
    given = options.data(pairs("--data", data, "NAME=CLAIM"))
    plan = options.plan(recipe, given)
    claims = mounted(plan, given)
    parameters = pairs("--parameter", parameter, "NAME=VALUE")
    place = open_backend(backend, Settings(cluster, parallel))
    if fill:
        plan = _unfilled(plan, place)
        if not plan.steps:
            say(f"Every cell of {recipe} is filled. One report over all runs: moco report RUN...")
            return ExitCode.OK
    request = Request(
        plan,
        data=claims,
        parameters=parameters,
        # What a cache points at may have been deleted; what is whole is imported instead.
        reuse=not (no_cache or fill),
        checks=not no_checks,
    )
    run = place.start(request, display_for(sys.stderr))
    if run.state != "running":
        return conclude(run)
    say_begun(run, place)
    return watch_run(run, place) if watch else ExitCode.OK


def say_begun(run: Run, backend: Backend) -> None:
    """Say where a run is executed that goes on by itself, and what can be done with it."""
    say(f"{run.id}: {number(len(run.record.steps), 'step')}")
    for line in backend.whereabouts(run).lines:
        say(f"  {line}")
    say(f"  how far it is:   moco status {run.id}")
    say(f"  what it says:    moco logs {run.id} [STEP]")
    say(f"  its artifacts:   moco pull {run.id}")


def _unfilled(plan: Plan, backend: Backend) -> Plan:
    """Return what is left of a plan."""
    rest = fill_plan(plan, [(run, urls_of(made)) for run, made in backend.earlier(plan)])
    empty = sum(source.step in rest.steps for source in filled_cells(plan).values())
    tell(
        f"{number(empty, 'empty cell')} of {len(filled_cells(plan))}: "
        f"{len(rest.steps)} of {number(len(plan.steps), 'step')} to run"
    )
    return rest
