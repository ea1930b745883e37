"""What is planned from submitted runs: the rest of a table, one step again, a continued attempt."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import DataError, UsageError
from components.core.stage import Stage
from components.core.store import FolderStore
from pipelines.backends.kubeflow.connection import Cluster
from pipelines.backends.kubeflow.names import task_name
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.backends.kubeflow.parts import places_of
from pipelines.backends.kubeflow.record import ClusterRun
from pipelines.backends.kubeflow.submit import state_of, submit_plan
from pipelines.plan import Existing, Plan
from pipelines.recipes import Options, build_plan, load_recipe
from pipelines.runs.artifacts import Urls
from pipelines.runs.fill import fill_plan
from pipelines.runs.folder import Run, all_runs
from pipelines.runs.record import Parent
from pipelines.runs.rerun import rerun_plan
from tests.pipelines.submitting import ROOT, Bucket, urls

pytestmark = pytest.mark.usefixtures("world")

REPORT, RANDOM, MOCO = "report", "measure_random_0", "measure_moco_in1m_0"


@pytest.fixture(scope="module")
def executed(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, Urls]]:
    """The recipe of toys, submitted and executed once, and where its artifacts are."""
    folder = tmp_path_factory.mktemp("executed")
    bucket = Bucket(folder / "bucket", folder / "runs", url=str(folder / "bucket"))
    run, _ = bucket.submit(toys())
    yield run, urls(run, FolderStore(folder / "bucket"))


def toys(**options: Any) -> Plan:
    return build_plan(load_recipe("toys"), Options(scale="digits", **options))


def without(found: Urls, *steps: str) -> Urls:
    return {key: url for key, url in found.items() if key[0] not in steps}


def test_nothing_is_left_of_a_table_that_is_full(executed: tuple[Run, Urls]) -> None:
    assert not fill_plan(toys(), [executed]).steps


def test_an_empty_cell_runs_its_step_on_what_is_there_and_the_report_anew(
    executed: tuple[Run, Urls],
) -> None:
    run, found = executed

    rest = fill_plan(toys(), [(run, without(found, RANDOM))])

    assert list(rest.steps) == [RANDOM, REPORT]
    model = rest.step(RANDOM).inputs["model"]
    assert model == Existing(found["make_random", "model"], "Model")
    cells = dict(rest.step(REPORT).sources())
    assert cells["metrics.toys__random__short__0"] == rest.step(RANDOM).output("metrics")
    assert cells["metrics.toys__moco_in1m__short__0"] == Existing(found[MOCO, "metrics"], "Metrics")


def test_what_an_empty_cell_lacks_is_made_too(executed: tuple[Run, Urls]) -> None:
    run, found = executed

    rest = fill_plan(toys(), [(run, without(found, RANDOM, "make_random"))])

    assert list(rest.steps) == ["make_random", RANDOM, REPORT]


def test_a_wider_table_takes_over_the_cells_that_were_measured(
    executed: tuple[Run, Urls],
) -> None:
    rest = fill_plan(toys(trials=2), [executed])

    assert list(rest.steps) == ["measure_random_1", "measure_moco_in1m_1", REPORT]


def test_a_cell_that_a_rerun_measured_is_filled(executed: tuple[Run, Urls]) -> None:
    """The rerun read an existing artifact, which stands for the step that made it."""
    run, found = executed
    again = rerun_plan(run, RANDOM, found)
    rerun = Bucket(run.folder.parent / "other", run.folder.parent / "again").write_down(again, "2")
    made = {(RANDOM, port): f"s3://elsewhere/{port}" for port in ("model", "metrics")}

    filled = fill_plan(toys(), [(run, without(found, RANDOM)), (rerun, made)])

    assert not filled.steps


def test_a_rerun_reads_the_artifacts_of_the_run(executed: tuple[Run, Urls]) -> None:
    run, found = executed

    plan = rerun_plan(run, "make_random", found, downstream=True)

    assert list(plan.steps) == ["make_random", RANDOM, REPORT]
    cells = dict(plan.step(REPORT).sources())
    assert cells["metrics.toys__moco_in1m__short__0"] == Existing(found[MOCO, "metrics"], "Metrics")
    with pytest.raises(DataError, match="make_random --downstream` makes it first"):
        rerun_plan(run, RANDOM, without(found, "make_random"))


def test_the_checkpoints_of_a_stopped_step_are_found_beside_its_output(
    tmp_path: Path, runs: Path
) -> None:
    bucket = Bucket(tmp_path / "bucket", runs)
    run = bucket.write_down(toys(), "run-1")
    folder = tmp_path / "bucket" / ROOT / ClusterRun.of(run).pipeline
    store = FolderStore(folder)
    places = places_of(ClusterRun.of(run), run.record.steps, store)
    state = folder / "run-1" / task_name(RANDOM) / "id-1" / "model.state"
    with pytest.raises(UsageError, match="left no checkpoint"):
        state_of(run, RANDOM, places, store)
    (state / "000001").mkdir(parents=True)
    (state / "000001" / "manifest.json").write_text("{}")

    url = state_of(run, RANDOM, places, store)

    assert url == f"{ClusterRun.of(run).artifacts}/{task_name(RANDOM)}/id-1/model.state"
    with pytest.raises(UsageError, match="did you mean 'measure_random_0'"):
        state_of(run, "measure_random_O", places, store)
    # One that already continues an attempt goes on with the same checkpoints.
    shutil.rmtree(state)
    parent = Parent(run="earlier", steps=(RANDOM,), states={RANDOM: "s3://bucket/old.state"})
    again = bucket.write_down(toys(), "run-2", parent)
    assert state_of(again, RANDOM, places, store) == "s3://bucket/old.state"


@pytest.mark.parametrize(
    ("options", "parameters", "words"),
    [
        ({}, {"memory_toi": "1Gi"}, "--parameter memory_toi: .* did you mean 'memory_toy'"),
        ({"root": "/here"}, {}, "--cluster root=/here: write it as s3://BUCKET"),
    ],
)
def test_what_cannot_be_submitted_is_refused_before_anybody_is_asked(
    runs: Path, options: dict[str, Any], parameters: dict[str, str], words: str, toy: Stage[Any]
) -> None:
    cluster = Cluster(ClusterOptions(server="http://127.0.0.1:9", **options))

    with pytest.raises(UsageError, match=words):
        submit_plan(toys(), cluster, runs, parameters=parameters)
    assert not all_runs(runs)
