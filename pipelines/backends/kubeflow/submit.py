"""Submits plans to Kubeflow Pipelines: compiled, uploaded, started, and written down as runs."""

import tempfile
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from components.core.errors import ClusterError, StoreError, UsageError
from components.core.store import Store, is_remote
from pipelines.backends.kubeflow.advance import Advance
from pipelines.backends.kubeflow.artifacts import find_artifacts
from pipelines.backends.kubeflow.compile import compile_plan
from pipelines.backends.kubeflow.compile_parts import CompiledPart, compile_parts
from pipelines.backends.kubeflow.connection import Cluster
from pipelines.backends.kubeflow.cut import on_gpus
from pipelines.backends.kubeflow.images import require_digests
from pipelines.backends.kubeflow.names import pipeline_name, task_name
from pipelines.backends.kubeflow.parts import (
    Begun,
    Given,
    Part,
    StepPlaces,
    StoredParts,
    part_name,
)
from pipelines.backends.kubeflow.record import NAME, ClusterRun
from pipelines.backends.kubeflow.server import Server
from pipelines.backends.kubeflow.status import find_places, refresh, stored_parts
from pipelines.plan import Plan
from pipelines.runs.artifacts import urls_of
from pipelines.runs.folder import Run, create_run, forget_run
from pipelines.runs.record import DONE, PLAN, RECORD, Parent
from pipelines.runs.rerun import plan_again


def submit_plan(
    plan: Plan,
    cluster: Cluster,
    runs: Path,
    *,
    parent: Parent | None = None,
    parameters: Mapping[str, str] | None = None,
    parallel: int | None = None,
) -> Run:
    """Start a run of a plan on a cluster; in parts, if its workflow would be too large.

    Args:
        plan: The plan.
        cluster: Where.
        runs: Folder of the runs; the new one is written down there.
        parent: The run that a rerun comes from.
        parameters: Values of the pipeline's parameters, in place of their defaults.
        parallel: Steps on GPUs that may run at a time. Kubeflow knows no such limit: more of them
            than that are cut into parts too, which begin when others have ended.

    Raises:
        UsageError: if the plan cannot be compiled, has no such parameter, or names an image by tag.
        ClusterError: if the cluster cannot be reached or refuses.
        StoreError: if the store cannot be reached or refuses.
    """
    options = cluster.options
    require_digests(plan, options)
    if not is_remote(options.root):
        raise UsageError(
            f"--cluster root={options.root}: write it as s3://BUCKET/FOLDER or minio://..."
        )
    given = Given(options=options, parameters=dict(parameters or {}), parallel=parallel)
    states = parent.states if parent else {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"{pipeline_name(plan)}.yaml")
        compiled = compile_plan(plan, file, options, states)
        compiled.require(given.parameters)
        fits = compiled.fits(options) and _run_at_once(plan, parallel)
        parts = (
            [] if fits else compile_parts(plan, compiled, options, states=states, most=given.most)
        )
        cluster.store(options.root).check()
        ids = Server(cluster).upload(pipeline_name(plan), file) if fits else None
    run = create_run(runs, plan, parent=parent, backend=NAME, executed_here=False)
    try:
        if ids:
            name = Server(cluster).start(run.id, *ids, given.parameters)
        else:
            name = str(uuid.uuid4())
            _write_down(run, cluster, name, cut=True)
            stored = stored_parts(cluster, ClusterRun.of(run).artifacts)
            stored.give(given)
            _write(stored, run, parts, given.parameters, states)
    except BaseException:
        forget_run(run)
        raise
    if ids:
        _write_down(run, cluster, name)
    else:
        _begin(run, cluster)
    return run


def _run_at_once(plan: Plan, parallel: int | None) -> bool:
    return parallel is None or len(on_gpus(plan, plan.steps)) <= parallel


def _write_down(run: Run, cluster: Cluster, name: str, *, cut: bool = False) -> None:
    """Write down where a run is executed, and beside its artifacts what it is, for others."""
    pipeline = pipeline_name(run.plan)
    root = cluster.options.root.rstrip("/")
    place = ClusterRun(
        run=name,
        pipeline=pipeline,
        namespace=cluster.options.namespace,
        server=cluster.server_name,
        artifacts=f"{root}/{pipeline}/{name}",
        cut=cut,
    )
    place.write(run)
    store = cluster.store(place.artifacts)
    for file in (PLAN, RECORD):
        store.write(file, (run.folder / file).read_bytes())


def _begin(run: Run, cluster: Cluster) -> None:
    """Begin the first parts of a run; of one of which none has begun nothing is left."""
    try:
        Advance(run, cluster).begin()
    except BaseException:
        place = ClusterRun.of(run)
        with suppress(ClusterError, StoreError):  # when in doubt it is kept
            parts = [part for part, _ in stored_parts(cluster, place.artifacts).all().values()]
            if not any(Server(cluster).named(part.name) for part in parts):
                cluster.store(place.store).delete(place.run)
                forget_run(run)
        raise


def _write(
    stored: StoredParts,
    run: Run,
    parts: Sequence[CompiledPart],
    given: Mapping[str, str],
    states: Mapping[str, str],
) -> None:
    """Write down parts that have yet to begin."""
    for part in parts:
        known = {parameter.name for parameter in part.compiled.parameters}
        description = Part(
            number=part.number,
            name=part_name(run.id, ClusterRun.of(run), part.number),
            steps=tuple(part.cut.plan.steps),
            reads={name: (out.step, out.port) for name, out in part.cut.reads.items()},
            parameters={name: value for name, value in given.items() if name in known},
            states={step: states[step] for step in part.cut.plan.steps if step in states},
        )
        stored.write(description, part.pipeline)


def retry(run: Run, cluster: Cluster) -> None:
    """Try again what failed in a run; finished steps are kept.

    The platform does that itself. Of a run that was cut all steps that are left become further
    parts, which go on from what the steps before them have saved.

    Args:
        run: The run.
        cluster: Where it is executed.

    Raises:
        UsageError: if the run did not fail.
        ClusterError, StoreError: if the cluster or the store cannot be reached or refuse.
    """
    place, server = ClusterRun.of(run), Server(cluster)
    if place.cut:
        refresh(run, cluster)
    state = run.state if place.cut else server.run(place).state
    if state not in ("failed", "interrupted"):
        raise UsageError(
            f"run {run.id} is {state}; only what failed can be tried again. "
            f"`moco rerun {run.id} STEP` runs one step as a new run"
        )
    if place.cut:
        _begin_what_is_left(run, cluster)
    else:
        server.retry(place)
    run.write_record(run.record.model_copy(update={"state": "running", "ended": None}))


def _begin_what_is_left(run: Run, cluster: Cluster) -> None:
    """Begin all that is left of a run, as further parts of it.

    Raises:
        UsageError: if somebody else does that.
    """
    place = ClusterRun.of(run)
    made = urls_of(find_artifacts(run, cluster.store(place.store), cluster.store))
    stored, places = stored_parts(cluster, place.artifacts), find_places(run, cluster)
    given = stored.given
    left = [step for step, status in run.statuses().items() if status.state not in DONE]
    plan = plan_again(run, left, made, by_uri=True)
    states = {}
    for step in (step for step in left if run.plan.step(step).stage.resumable):
        with suppress(UsageError):
            states[step] = state_of(run, step, places, cluster.store(place.store))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "whole.yaml")
        compiled = compile_plan(plan, file, given.options, states)
    first = max(places.parts) + 1
    parts = compile_parts(
        plan, compiled, given.options, states=states, first=first, most=given.most
    )
    if not stored.claim(first):
        raise UsageError(
            f"somebody else tries run {run.id} again: moco status {run.id}. If that broke off, "
            f"delete {place.artifacts}/{stored.claimed(first)}"
        )
    for number, (part, begun) in places.parts.items():
        if begun is None:  # what comes now stands for it
            stored.begin(number, Begun(run=None, left_out=part.steps))
    _write(stored, run, parts, given.parameters, states)
    stored.go_on()
    Advance(run, cluster).begin()


def cancel(run: Run, cluster: Cluster) -> None:
    """Stop a run, with all its parts.

    Raises:
        ClusterError, StoreError: if the cluster or the store cannot be reached or refuse.
    """
    place, server = ClusterRun.of(run), Server(cluster)
    if not place.cut:
        server.terminate(place)
        return
    stored_parts(cluster, place.artifacts).cancel()
    for part in find_places(run, cluster).runs.values():
        if server.run(part).state == "running":
            server.terminate(part)


def state_of(run: Run, step: str, places: StepPlaces, store: Store) -> str:
    """Return the URL of the checkpoints that a step of a submitted run left.

    Args:
        run: The run.
        step: The step.
        places: Where its steps are executed.
        store: Of the pipeline's runs.

    Raises:
        UsageError: if there are none.
    """
    run.require_step(step)
    handed = {**(run.record.parent.states if run.record.parent else {}), **places.states}
    if step in handed:
        return handed[step]
    place = places.of.get(step, ClusterRun.of(run))
    folder = f"{place.run}/{task_name(step)}"
    states = {
        entry.key.partition(".state/")[0] + ".state"
        for entry in store.list(folder)
        if ".state/" in entry.key
    }
    if not states:
        raise UsageError(
            f"{step} of run {run.id} left no checkpoint in {place.store}/{folder}; without "
            "--continue it starts anew"
        )
    return f"{place.store}/{max(states)}"
