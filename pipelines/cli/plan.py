"""`moco plan`: what a recipe would do on this machine, before anything is spent."""

from contextlib import suppress
from typing import Any

from components.core.config import Config
from components.core.errors import MocoError
from components.training.config import SupervisedConfig
from pipelines.backends import open_backend
from pipelines.backends.base import Settings
from pipelines.backends.local.forecast import Forecast, forecast, wall_seconds
from pipelines.backends.local.machine import this_machine
from pipelines.backends.local.reuse import ReuseIndex
from pipelines.backends.local.sources import find_sources
from pipelines.cli.options import Data, Jobs, Json, RecipeName, RecipeOptions, mounted, pairs
from pipelines.cli.output import print_json, print_table, say
from pipelines.plan import Existing, Mounted, Plan
from pipelines.runs.folder import runs_folder
from pipelines.tables import filled_cells, report_config
from pipelines.words import duration, number, size


def plan(
    recipe: RecipeName,
    /,
    *,
    options: RecipeOptions = RecipeOptions(),  # noqa: B008 - frozen
    data: Data = (),
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """Show what a recipe would run and reuse, and what it may cost.

    Nothing is started. Costs are those of earlier runs of the same stage at the
    same scale, or what a stage's config states.
    """
    given = options.data(pairs("--data", data, "NAME=FOLDER"))
    built = options.plan(recipe, given, here=True)
    folders = mounted(built, given)
    runs = runs_folder()
    machine = this_machine(jobs)
    sources = find_sources(built, folders, runs, complete=False)
    forecasts = forecast(built, sources, machine, ReuseIndex(runs))
    seconds = wall_seconds(built, forecasts, machine)
    running = {
        name: step_forecast.estimate
        for name, step_forecast in forecasts.items()
        if step_forecast.action == "run"
    }
    hours = [estimate.gpu_hours for estimate in running.values()]
    sizes = [estimate.size for estimate in running.values()]
    if json:
        print_json(
            {
                "recipe": built.name,
                "scale": built.scale,
                "steps": [
                    _step_facts(built, name, step_forecast)
                    for name, step_forecast in forecasts.items()
                ],
                "cells": sorted(filled_cells(built)),
                "data": built.mounts(),
                "parts": _parts(built),
                "seconds": seconds,
                "gpu_hours": None if None in hours else sum(filter(None, hours)),
                "bytes": None if None in sizes else sum(filter(None, sizes)),
            }
        )
        return
    print_table(
        ["step", "stage", "", "time", "GPU hours", "bytes", "why"],
        [
            [
                name,
                built.step(name).stage.name,
                step_forecast.action,
                duration(step_forecast.estimate.seconds) if step_forecast.action == "run" else "",
                _hours(step_forecast.estimate.gpu_hours) if step_forecast.action == "run" else "",
                size(step_forecast.estimate.size) if step_forecast.action == "run" else "",
                step_forecast.why,
            ]
            for name, step_forecast in forecasts.items()
        ],
        right=["time", "GPU hours", "bytes"],
    )
    say()
    reused = len(forecasts) - len(running)
    say(f"{number(len(forecasts), 'step')}: {len(running)} to run, {reused} reused.")
    if running:
        stated = {e.basis for e in running.values() if e.gpu_hours and e.basis.startswith("of ")}
        say(
            f"On this machine {'an unknown time' if seconds is None else duration(seconds)} "
            f"with {machine.jobs} at a time; "
            f"{_total(hours, _hours)} GPU hours{''.join(f' {basis}' for basis in sorted(stated))}; "
            f"{_total(sizes, size)} written."
        )
    _print_cells(built)
    _print_lengths(built)
    if (parts := _parts(built)) > 1:
        say(
            f"On a cluster one run of about {parts} parts, for one workflow has no room for "
            f"{len(built.steps)} steps: each begins when what it reads is there."
        )
    missing = [name for name in built.mounts() if name not in folders]
    if missing:
        added = " ".join(f"--data {name}=FOLDER" for name in missing)
        say(f"To run it, add the data sets: {added}")


def _parts(plan: Plan) -> int:
    """Say into how many parts a cluster's backend would cut a run."""
    with suppress(MocoError):  # how a cluster is set up is not what was asked
        return open_backend("kubeflow", Settings()).parts(plan)
    return 1


def _step_facts(plan: Plan, name: str, step_forecast: Forecast) -> dict[str, Any]:
    step = plan.step(name)
    return {
        "name": name,
        "stage": step.stage.name,
        "action": step_forecast.action,
        "why": step_forecast.why,
        "seconds": step_forecast.estimate.seconds,
        "gpu_hours": step_forecast.estimate.gpu_hours,
        "bytes": step_forecast.estimate.size,
        "basis": step_forecast.estimate.basis,
        "length": _length(step.config),
    }


def _length(config: Config) -> str | None:
    """Say how long a training is whose length follows from its data; None of another."""
    if not isinstance(config, SupervisedConfig) or config.length_of is None:
        return None
    if config.counted is None:
        rule = f"{config.length} for {config.length_of:,} images"
        return f"{rule}; for as many as there are, times the root of the ratio"
    return f"{config.fit(config.counted).length}, of {config.counted:,} images"


def _print_lengths(plan: Plan) -> None:
    """Show how long trainings are whose length follows from their data."""
    told: dict[tuple[str, str, str], int] = {}
    for step in plan:
        source, length = step.inputs.get("data"), _length(step.config)
        if length and isinstance(source, Mounted | Existing):
            data = source.name if isinstance(source, Mounted) else source.uri
            key = (data, step.stage.name, length)
            told[key] = told.get(key, 0) + 1
    if told:
        say()
        print_table(
            ["data", "stage", "trainings", "length, by the number of images"],
            [[data, stage, str(count), length] for (data, stage, length), count in told.items()],
            right=["trainings"],
        )
        say(
            "Another for all rows: --set STAGE.length_of=null, its epochs or iterations, and a "
            "batch_size that the images fill."
        )


def _print_cells(plan: Plan) -> None:
    cells = filled_cells(plan)
    for table in report_config(plan).tables:
        keys = [key for key in cells if key.startswith(f"{table.key}__")]
        rows = [r.key for r in table.rows if any(k.split("__")[1] == r.key for k in keys)]
        if keys:
            where = table.section if table.published else table.title
            say(f"Fills {number(len(keys), 'cell')} of {where}: {', '.join(rows)}.")


def _hours(hours: float | None) -> str:
    return "?" if hours is None else f"{hours:.3g}"


def _total(values: list[Any], show: Any) -> str:
    known = [value for value in values if value is not None]
    unknown = len(values) - len(known)
    more = f" (and {unknown} not known)" if unknown else ""
    return f"{show(sum(known))}{more}"
