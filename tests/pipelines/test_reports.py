"""`moco report` and `moco explain` on submitted runs: what they need comes by itself."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import DataError, ExitCode, UsageError
from components.core.store import open_store
from components.report.results import read_report
from pipelines.__main__ import main
from pipelines.backends.base import Settings
from pipelines.backends.kubeflow.backend import Kubeflow
from pipelines.backends.kubeflow.record import ClusterRun
from pipelines.recipes import Options, build_plan, load_recipe
from pipelines.runs.bucket import open_bucket_run
from pipelines.runs.cells import find_cell
from pipelines.runs.find import find_run
from pipelines.runs.folder import Run
from pipelines.runs.merge import report_plan
from pipelines.runs.pull import pull
from pipelines.runs.record import PLAN, RECORD, Parent
from pipelines.runs.rerun import rerun_plan
from pipelines.tables import filled_cells, report_config, report_steps
from tests.pipelines.submitting import Bucket, urls
from tests.servers.minio import MinioServer

Capture = pytest.CaptureFixture[str]
STORE = ("MOCO_S3_ENDPOINT", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")


@pytest.fixture(scope="module")
def template(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe of toys executed once, with its own report."""
    folder = tmp_path_factory.mktemp("template")
    bucket = Bucket(folder / "bucket", folder / "runs")
    bucket.submit(build_plan(load_recipe("toys"), Options(scale="digits", trials=2)))
    return folder


def entitle(run: Run, title: str) -> None:
    """Give the report of a run a title."""
    document = json.loads(run.plan_text)
    document["steps"][-1]["config"]["title"] = title
    (run.folder / PLAN).write_text(json.dumps(document))


@pytest.fixture
def bucket(
    template: Path, tmp_path: Path, runs: Path, minio_server: MinioServer, bucket_url: str
) -> Bucket:
    """That run in a real bucket; nothing of it here."""
    shutil.copytree(template / "bucket", tmp_path / "bucket")
    bucket = Bucket(tmp_path / "bucket", runs, bucket_url)
    for path in bucket.folder.glob("*/*/*/*/run.json"):
        path.write_text(path.read_text().replace("s3://mlpipeline", bucket_url))
    bucket.upload(minio_server, bucket_url.removeprefix("s3://"))
    return bucket


@pytest.fixture
def url(bucket: Bucket) -> str:
    """The URL of the run."""
    [path] = bucket.folder.glob("*/*/*/*/run.json")
    return f"{bucket.url}/{path.parent.relative_to(bucket.folder)}"


@pytest.fixture
def run(url: str, runs: Path) -> Run:
    """The run as somebody has it who did not submit it."""
    return open_bucket_run(url, open_store(url), runs)


@pytest.fixture
def own_report(bucket: Bucket) -> Any:
    """What the pipeline's own report step wrote."""
    [path] = bucket.folder.glob("*/*/*/*/report/*/report/report.json")
    return json.loads(path.read_text())


def rebuilt(runs: Path) -> Any:
    """Return the newest report that was made here."""
    folder = find_run("report", runs).artifact("report", "report")
    return json.loads((folder / "report.json").read_text())


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget where the store is."""
    for name in STORE:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KUBECONFIG", "/nowhere")


def test_a_run_in_a_bucket_becomes_a_run_here(run: Run, url: str, runs: Path) -> None:
    assert run == Run(runs / run.record.id)
    assert find_run("toys", runs) == run
    assert ClusterRun.of(run) and ClusterRun.of(run).artifacts == url
    assert {status.state for status in run.statuses().values()} == {"waiting"}


def test_what_was_heard_of_a_run_since_is_kept(run: Run, url: str, runs: Path) -> None:
    run.write_record(run.record.model_copy(update={"state": "failed"}))

    assert open_bucket_run(url, open_store(url), runs) == run
    assert run.state == "failed"


def test_a_copy_in_another_bucket_is_read_there(
    bucket: Bucket, url: str, runs: Path, minio_server: MinioServer
) -> None:
    copy = minio_server.make_bucket()
    bucket.upload(minio_server, copy)
    there = url.replace(bucket.url, f"s3://{copy}")

    run = open_bucket_run(there, open_store(there), runs)

    found = urls(run)
    assert found["report", "report"].startswith(there)


def test_what_is_no_run_is_refused(url: str, runs: Path) -> None:
    with pytest.raises(UsageError, match=r"is no run: it has no plan\.json"):
        open_bucket_run(f"{url}/report", open_store(f"{url}/report"), runs)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        (RECORD, '"id":"', '"id":"../../'),
        (RECORD, '"make_random"', '"../../../evil"'),
        (PLAN, '"make_random"', '"../../../evil"'),
        (PLAN, '"toy"', '"nothing"'),
        (RECORD, '"artifacts"', '"artefacts"'),
    ],
)
def test_a_hostile_or_foreign_run_is_refused(
    url: str, runs: Path, file: str, old: str, new: str
) -> None:
    store = open_store(url)
    document = json.dumps(json.loads(store.read(file)), separators=(",", ":"))
    assert old in document
    store.write(file, document.replace(old, new).encode())

    with pytest.raises(DataError, match=r"refused|not a run of this version"):
        open_bucket_run(url, store, runs)

    assert not list(runs.glob("*"))


def test_another_run_of_the_same_name_is_left_alone(run: Run, url: str, runs: Path) -> None:
    run.write_record(run.record.model_copy(update={"backend": "local", "artifacts": None}))

    with pytest.raises(UsageError, match="so is another run"):
        open_bucket_run(url, open_store(url), runs)


def test_a_report_of_a_submitted_run_has_the_numbers_of_the_pipelines_own(
    run: Run, runs: Path, own_report: Any, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert main(["report", run.id]) == 0

    assert rebuilt(runs) == own_report
    assert "10.0 ± 0.0   2 of 2" in capsys.readouterr().out
    kinds = {path.parent.name for path in run.folder.glob("*/*/manifest.json")}
    assert kinds == {"metrics"}

    offline(monkeypatch)
    assert main(["report", run.id]) == 0


def test_a_report_straight_from_the_bucket(url: str, runs: Path, own_report: Any) -> None:
    assert main(["report", url]) == 0

    assert rebuilt(runs) == own_report


def test_a_bundle_gives_the_same_report_without_any_cluster(
    run: Run,
    own_report: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert main(["pull", run.id, "--output", str(tmp_path / "bundle")]) == 0
    offline(monkeypatch)
    shutil.rmtree(run.folder)
    monkeypatch.setenv("MOCO_RUNS", str(tmp_path / "elsewhere"))

    assert main(["report", str(tmp_path / "bundle" / run.id)]) == 0

    assert rebuilt(tmp_path / "elsewhere") == own_report


def test_a_local_and_a_submitted_run_are_reported_together(
    run: Run, runs: Path, capsys: Capture
) -> None:
    local = ["run", "toys", "--scale", "digits", "--rows", "random"]
    assert main([*local, "--set", "measure_random_0.value=16"]) == 0
    [other] = [one.id for one in map(Run, runs.iterdir()) if (one.folder / ".lock").exists()]
    capsys.readouterr()

    assert main(["report", run.id, other]) == 0

    report = read_report(find_run("report", runs).artifact("report", "report"))
    trials = report.tables[0].rows[0].cells[0].trials
    assert [trial.values["value"] for trial in trials] == [10.0, 10.0, 16.0]


def test_a_report_keeps_the_title_that_its_runs_agree_on(
    run: Run, url: str, runs: Path, tmp_path: Path
) -> None:
    other = open_bucket_run(url, open_store(url), tmp_path / "others")
    for one in (run, other):
        pull(one, Kubeflow(Settings()))
    entitle(run, "Mine")
    run, other = Run(run.folder), Run(other.folder)

    assert report_config(report_plan([run])).title == "Mine"
    title = report_config(report_plan([run, other])).title
    assert title == report_config(other.plan).title == "MoCo transfer experiments"
    entitle(other, "Mine")
    assert report_config(report_plan([run, Run(other.folder)])).title == "Mine"


def test_one_name_for_data_of_two_layouts_is_refused(run: Run, url: str, runs: Path) -> None:
    pull(run, Kubeflow(Settings()))
    other = Run(shutil.copytree(run.folder, runs / "other"))
    document = json.loads(other.plan_text)
    document["steps"][-1]["config"]["tables"][0]["section"] = "data of your own, coco"
    (other.folder / PLAN).write_text(json.dumps(document))
    with pytest.raises(UsageError, match="in another: one table cannot hold both"):
        report_plan([Run(run.folder), Run(other.folder)])


def test_explain_pulls_only_what_it_shows(run: Run, capsys: Capture) -> None:
    assert main(["explain", run.id, "toys/random/short/1"]) == 0

    said = capsys.readouterr().out
    assert "value: 10   (published 1.5)" in said
    assert "  model:\n    toy.model  SHA-256" in said
    assert "image  registry.example/torch@sha256:1234" in said
    pulled = [path.parent.relative_to(run.folder) for path in run.folder.glob("*/*/manifest.json")]
    assert pulled == [Path("measure_random_1/metrics")]


def test_what_cannot_be_fetched_is_an_error_or_is_said(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert main(["explain", run.id, "toys/random/short/1"]) == 0
    monkeypatch.setenv("MOCO_S3_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("MOCO_S3_RETRY_SECONDS", "0")
    capsys.readouterr()

    assert main(["explain", run.id, "toys/random/short/0"]) == ExitCode.LOST_STORE
    assert "is right and up" in capsys.readouterr().err
    assert main(["report", run.id]) == 0
    said = capsys.readouterr()
    assert "3 cells of run" in said.err
    assert "1 of 2" in said.out


def test_without_a_store_or_a_cluster_the_ways_to_both_are_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    offline(monkeypatch)

    assert main(["report", run.id]) == ExitCode.LOST_CLUSTER

    said = capsys.readouterr().err
    assert "no way to a cluster" in said
    assert "set MOCO_S3_ENDPOINT" in said


def test_cells_that_a_submitted_run_took_from_another_are_pulled_and_bundled(
    bucket: Bucket,
    run: Run,
    minio_server: MinioServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A rerun with its report reads the cells that did not run again from the first run."""
    found = urls(run)
    plan = rerun_plan(run, "measure_random_0", found, downstream=True)
    again = bucket.write_down(plan, "again", Parent(run=run.id, steps=tuple(plan.steps)))
    source = bucket.folder / found["measure_random_0", "metrics"].removeprefix(f"{bucket.url}/")
    target = bucket.pipeline(plan) / "again" / "measure-random-0" / "id"
    shutil.copytree(source.parent, target)
    bucket.upload(minio_server, bucket.url.removeprefix("s3://"))

    bundle = pull(again, Kubeflow(Settings()), destination=tmp_path / "bundle").run
    offline(monkeypatch)
    shutil.rmtree(bucket.runs)

    cells = filled_cells(report_plan([bundle]))
    assert cells == {}  # all of them are artifacts by now
    [step] = report_steps(report_plan([bundle]))
    assert len(list(step.sources())) == 4
    assert find_cell(bundle, "toys/moco_in1m/short/1").is_there


def test_a_bundle_of_a_rerun_brings_the_tables_that_it_fills(
    bucket: Bucket, run: Run, minio_server: MinioServer, tmp_path: Path
) -> None:
    found = urls(run)
    plan = rerun_plan(run, "measure_random_0", found)
    again = bucket.write_down(plan, "again", Parent(run=run.id, steps=tuple(plan.steps)))
    source = bucket.folder / found["measure_random_0", "metrics"].removeprefix(f"{bucket.url}/")
    shutil.copytree(source.parent, bucket.pipeline(plan) / "again" / "measure-random-0" / "id")
    bucket.upload(minio_server, bucket.url.removeprefix("s3://"))

    bundle = pull(again, Kubeflow(Settings()), destination=tmp_path / "bundle").run
    shutil.rmtree(bucket.runs)

    assert find_cell(bundle, "toys/random/short/0").is_there
    assert report_config(report_plan([bundle])).tables == run_tables(bundle)


def run_tables(bundle: Run) -> Any:
    """Return the tables of the run that a bundled rerun came from."""
    parent = bundle.record.parent
    assert parent
    return report_config(Run(bundle.folder.parent / parent.run).plan).tables
