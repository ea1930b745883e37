"""Runs as they lie in a folder: found by name, locked, read whatever became of them."""

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import DataError, UsageError
from components.core.stage import Stage
from pipelines.backends.kubeflow.record import ClusterRun
from pipelines.backends.local.backend import unfinished_run
from pipelines.plan import Plan
from pipelines.runs.find import find_run
from pipelines.runs.folder import Run, all_runs, create_run
from pipelines.runs.record import Parent, StepStatus

pytestmark = pytest.mark.usefixtures("world")


@pytest.fixture
def plan(toy: Stage[Any]) -> Plan:
    plan = Plan("small", "digits")
    plan.add(toy, "only", toy.config())
    return plan


def finish(run: Run) -> None:
    run.write_record(run.record.model_copy(update={"state": "finished"}))


def test_runs_begun_in_the_same_second_have_names_of_their_own(runs: Path, plan: Plan) -> None:
    made = {create_run(runs, plan).id for _ in range(3)}

    assert len(made) == 3
    assert {run.id for run in all_runs(runs)} == made


def test_a_run_is_found_by_id_path_recipe_and_beginning(runs: Path, plan: Plan) -> None:
    run = create_run(runs, plan)

    assert find_run(run.id, runs) == run
    assert find_run(str(run.folder), runs) == run
    assert find_run("small", runs) == run
    assert find_run(run.id[:-2], runs) == run


def test_a_recipe_means_its_newest_run_that_is_no_rerun(runs: Path, plan: Plan) -> None:
    create_run(runs, plan)
    newest = create_run(runs, plan)
    create_run(runs, plan, parent=Parent(run=newest.id, steps=("only",)))

    assert find_run("small", runs) == newest


def test_an_unknown_run_is_refused_with_the_nearest_name(runs: Path, plan: Plan) -> None:
    with pytest.raises(UsageError, match=r"there is no run in .*moco run RECIPE"):
        find_run("smal", runs)
    create_run(runs, plan)
    with pytest.raises(UsageError, match="did you mean 'small'"):
        find_run("smoll", runs)
    create_run(runs, plan)
    with pytest.raises(UsageError, match="the beginning of 2 runs"):
        find_run("small-", runs)


def test_only_an_unfinished_run_of_the_same_plan_and_data_is_continued(
    runs: Path, plan: Plan, toy: Stage[Any]
) -> None:
    run = create_run(runs, plan, {"pictures": "/here"})
    other = Plan("small", "digits")
    other.add(toy, "only", toy.config(seed=1))

    assert unfinished_run(runs, plan, {"pictures": "/here"}) == run
    assert unfinished_run(runs, plan, {"pictures": "/there"}) is None
    assert unfinished_run(runs, other, {"pictures": "/here"}) is None
    parent = Parent(run=run.id, steps=("only",))
    assert unfinished_run(runs, plan, {"pictures": "/here"}, parent) is None
    finish(run)
    assert unfinished_run(runs, plan, {"pictures": "/here"}) is None


def test_the_plan_of_a_run_is_read_back_as_it_was(runs: Path, plan: Plan) -> None:
    assert create_run(runs, plan).plan == plan


def test_a_run_without_a_runner_is_interrupted_and_not_running(runs: Path, plan: Plan) -> None:
    run = create_run(runs, plan)
    run.write_status("only", StepStatus(state="running"))

    with run.lock():
        assert (run.state, run.status("only").state) == ("running", "running")
    assert (run.state, run.status("only").state) == ("interrupted", "interrupted")


def test_the_lock_waits_for_one_who_only_looks(
    runs: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run(runs, plan)
    with run.lock():
        pass
    looking = os.open(run.folder / ".lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)  # for an instant, as `moco status` does
    waited: list[float] = []

    def look_is_over(seconds: float) -> None:
        waited.append(seconds)
        os.close(looking)

    monkeypatch.setattr(time, "sleep", look_is_over)
    with run.lock():
        assert len(waited) == 1


def test_a_damaged_record_is_named(runs: Path, plan: Plan) -> None:
    run = create_run(runs, plan)
    (run.folder / "run.json").write_text("{")

    with pytest.raises(DataError, match=r"run\.json is not a RunRecord"):
        _ = run.record


def test_a_submitted_run_of_version_0_1_is_read(runs: Path, plan: Plan) -> None:
    run = create_run(runs, plan, executed_here=False)
    place = {"run": "a1", "pipeline": "small", "namespace": "ours", "server": "http://here"}
    old = json.loads((run.folder / "run.json").read_text())
    for name in ("backend", "place", "artifacts"):
        del old[name]
    old["cluster"] = {**place, "artifacts": "s3://bucket/small/a1"}
    (run.folder / "run.json").write_text(json.dumps(old))

    assert ClusterRun.of(run) == ClusterRun(**place, artifacts="s3://bucket/small/a1")
    assert run.state == "running"  # no process of this machine is missed
    (run.folder / "run.json").write_text(json.dumps({**old, "cluster": None}))
    assert (run.record.backend, run.record.artifacts) == ("local", None)
