"""Where the artifacts of submitted runs lie, found from the store's layout and the manifests."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import DataError, UsageError
from components.core.manifest import Lineage, read_manifest
from components.core.stage import Stage
from components.core.store import FolderStore, Store, open_store
from pipelines.backends.kubeflow.artifacts import earlier_runs, find_artifacts
from pipelines.backends.kubeflow.connection import Cluster
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.backends.kubeflow.record import ClusterRun
from pipelines.plan import Existing, Mounted, Plan
from pipelines.recipes import Options, build_plan, load_recipe
from pipelines.runs.artifacts import StoredArtifact
from pipelines.runs.folder import Run
from pipelines.runs.record import Parent, StepStatus
from tests.pipelines.launcher import Launcher
from tests.pipelines.submitting import ROOT, Bucket, make_step, new_id, urls
from tests.servers.minio import MinioServer

pytestmark = pytest.mark.usefixtures("world")

PORTS = ("model", "metrics")


class Counting(FolderStore):
    """A store that counts what it is asked."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reads: list[str] = []
        self.lists: list[str] = []

    def read(self, key: str) -> bytes:
        self.reads.append(key)
        return super().read(key)

    def list(self, prefix: str = "") -> Any:
        self.lists.append(prefix)
        return super().list(prefix)


@pytest.fixture(scope="module")
def executed(
    world: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Bucket, Run, Launcher]]:
    """The recipe of toys, compiled and executed once."""
    folder = tmp_path_factory.mktemp("executed")
    bucket = Bucket(folder / "bucket", folder / "runs", url=str(folder / "bucket"))
    run, launcher = bucket.submit(build_plan(load_recipe("toys"), Options(scale="digits")))
    yield bucket, run, launcher


@pytest.fixture
def bucket(tmp_path: Path, runs: Path) -> Bucket:
    """An empty store that nobody has to reach over a network."""
    return Bucket(tmp_path / "bucket", runs, url=str(tmp_path / "bucket"))


@pytest.fixture
def plan(toy: Stage[Any]) -> Plan:
    """A model, and a measurement of it."""
    plan = Plan("small", "digits")
    first = plan.add(toy, "make", toy.config(value=1.0))
    plan.add(toy, "measure", toy.config(value=2.0), model=first.output("model"))
    return plan


def store_of(run: Run) -> Store:
    return open_store(ClusterRun.of(run).store)


def found(run: Run, store: Store | None = None) -> dict[tuple[str, str], StoredArtifact]:
    return find_artifacts(run, store or store_of(run))


def make(bucket: Bucket, plan: Plan, run: str, step: str, value: float = 1.0) -> Path:
    """Write what a step of a plan makes; it reads what lies in the same run."""
    folder = bucket.pipeline(plan) / run / step / new_id()
    inputs = {}
    for name, source in plan.step(step).sources():
        [made] = (bucket.pipeline(plan) / run).glob(f"{source.step}/*/{source.port}")  # type: ignore[union-attr]
        inputs[name] = read_manifest(made).lineage()
    make_step(folder, plan.step(step).stage, plan.step(step).config, inputs, value)
    return folder


def test_every_artifact_of_an_executed_run_is_found(
    executed: tuple[Bucket, Run, Launcher],
) -> None:
    _, run, launcher = executed

    expected = {
        (step.name, port): launcher.pod(step.name.replace("_", "-")).output_uri(port)
        for step in run.plan
        for port in step.stage.outputs
    }
    assert urls(run, store_of(run)) == expected
    assert ("report", "html") in expected


def test_an_executed_run_costs_one_listing_and_a_read_for_each_manifest(
    executed: tuple[Bucket, Run, Launcher],
) -> None:
    bucket, run, _ = executed
    store = Counting(bucket.folder)

    here = found(run, store)

    assert len(store.lists) == 1
    assert len(store.reads) == sum(place.manifest is not None for place in here.values())


def test_what_the_cache_gave_is_found_in_the_run_that_made_it(
    executed: tuple[Bucket, Run, Launcher],
) -> None:
    bucket, first, launcher = executed
    cached = ["make-random", "make-moco-in1m", "measure-random-0"]
    run, _ = bucket.submit(first.plan, launcher, cached)

    here = found(run)

    assert len(here) == len(found(first))
    assert here["measure_random_0", "metrics"].origin == f"{first.id}/measure_random_0"
    before = launcher.pod("measure-random-0").output_uri("metrics")
    assert here["measure_random_0", "metrics"].url == before
    assert here["measure_moco_in1m_0", "metrics"].origin is None


def test_a_run_that_was_cached_whole_is_found(executed: tuple[Bucket, Run, Launcher]) -> None:
    bucket, first, launcher = executed
    run, _ = bucket.submit(first.plan, launcher, launcher.steps())

    here, before = found(run), found(first)
    assert here.keys() == before.keys()
    for output, place in here.items():
        assert place.origin
        assert place.manifest == before[output].manifest


def test_a_step_of_another_name_satisfies_too(bucket: Bucket, plan: Plan, toy: Stage[Any]) -> None:
    bucket.write_down(plan, "one")
    make(bucket, plan, "one", "make")
    other = Plan("small", "digits")
    other.add(toy, "renamed", toy.config(value=1.0))
    run = bucket.write_down(other, "two")

    assert found(run)["renamed", "model"].origin == f"{_first(bucket).id}/make"


def _first(bucket: Bucket) -> Run:
    return min((Run(path) for path in bucket.runs.iterdir()), key=lambda run: run.record.created)


def test_the_newest_run_counts_first_and_the_same_name_before_others(
    bucket: Bucket, plan: Plan
) -> None:
    for name, value in (("one", 1.0), ("two", 2.0), ("three", 3.0)):
        bucket.write_down(plan, name)
        make(bucket, plan, name, "make", value)
    run = bucket.write_down(plan, "now")

    assert "/three/make/" in found(run)["make", "model"].url
    shutil.rmtree(bucket.pipeline(plan) / "three" / "make")
    assert "/two/make/" in found(run)["make", "model"].url


def test_what_later_steps_have_read_decides_between_candidates(bucket: Bucket, plan: Plan) -> None:
    """The older of two earlier runs was the one that the cache took."""
    for name, value in (("one", 1.0), ("two", 2.0)):
        bucket.write_down(plan, name)
        make(bucket, plan, name, "make", value)
    run = bucket.write_down(plan, "now")
    older = next((bucket.pipeline(plan) / "one" / "make").iterdir())
    shutil.copytree(older, bucket.pipeline(plan) / "now" / "make" / "id")
    make(bucket, plan, "now", "measure")
    shutil.rmtree(bucket.pipeline(plan) / "now" / "make")

    assert "/one/make/" in found(run)["make", "model"].url


@pytest.mark.parametrize("change", ["config", "input", "stage"])
def test_other_work_satisfies_nothing(
    bucket: Bucket, plan: Plan, toy: Stage[Any], change: str
) -> None:
    bucket.write_down(plan, "one")
    make(bucket, plan, "one", "make")
    measured = make(bucket, plan, "one", "measure")
    path = measured / "model" / "manifest.json"
    document = json.loads(path.read_text())
    if change == "config":
        document["config"]["seed"] = 7
    elif change == "input":
        document["inputs"]["model"]["digest"] = "0" * 64
    else:
        document["stage"] = "digits"
    path.write_text(json.dumps(document))
    run = bucket.write_down(plan, "now")

    assert {step for step, _ in found(run)} == {"make"}


def test_a_step_that_is_executed_again_is_not_taken_from_before(bucket: Bucket, plan: Plan) -> None:
    bucket.write_down(plan, "one")
    make(bucket, plan, "one", "make")
    make(bucket, plan, "one", "measure")

    again = bucket.write_down(plan, "now", Parent(run="one", steps=("make",)))
    assert found(again) == {}

    failed = bucket.write_down(plan, "failed")
    failed.write_status("measure", StepStatus(state="failed"))
    assert {step for step, _ in found(failed)} == {"make"}


def test_an_upload_that_is_not_whole_is_no_artifact(bucket: Bucket, plan: Plan) -> None:
    """Kubeflow's launcher uploads in any order: the manifest may be there before the rest."""
    run = bucket.write_down(plan, "one")
    folder = make(bucket, plan, "one", "make")
    (folder / "model.state").mkdir()
    (folder / "model.state" / "manifest.json").write_text("{}")
    (folder / "executor-logs-0").write_text("it said")
    assert set(found(run)) == {("make", port) for port in PORTS}

    next((folder / "model").glob("part-*/*")).unlink()
    assert found(run) == {}


def test_of_two_attempts_the_finished_one_counts(bucket: Bucket, plan: Plan) -> None:
    run = bucket.write_down(plan, "one")
    folder = make(bucket, plan, "one", "make")
    for name in ("0-before", "z-after"):
        shutil.copytree(folder, folder.with_name(name))
        (folder.with_name(name) / "metrics" / "manifest.json").unlink()

    assert found(run)["make", "model"].url == str(folder / "model")


def test_of_two_finished_attempts_the_one_counts_that_was_read(bucket: Bucket, plan: Plan) -> None:
    run = bucket.write_down(plan, "one")
    folder = make(bucket, plan, "one", "make")
    make(bucket, plan, "one", "measure")
    other = folder.with_name("zzzz")
    make_step(other, plan.step("make").stage, plan.step("make").config, value=5.0)

    assert found(run)["make", "model"].url == str(folder / "model")


def test_mounted_imported_and_foreign_inputs_are_compared(
    bucket: Bucket, toy: Stage[Any], tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    make_step(elsewhere, toy, toy.config())
    existing = Existing(str(elsewhere / "metrics"), "Metrics")
    foreign = Existing("s3://models/moco_v1.pth.tar", "Model")

    def planned(data: str, checkpoint: Existing) -> Plan:
        plan = Plan("inputs", "digits")
        plan.add(
            toy, "only", toy.config(), model=checkpoint, data=Mounted(data), others={"a": existing}
        )
        return plan

    plan = planned("pictures", foreign)
    bucket.write_down(plan, "one")
    inputs = {
        "model": Lineage(origin="file", name="moco_v1.pth.tar", digest="1" * 64),
        "data": Lineage(origin="mount", name="/data/pictures"),
        "others.a": read_manifest(elsewhere / "metrics").lineage(),
    }
    make_step(bucket.pipeline(plan) / "one" / "only" / "id", toy, toy.config(), inputs)

    assert found(bucket.write_down(plan, "two"))
    assert not found(bucket.write_down(planned("paintings", foreign), "three"))
    other = Existing("s3://models/moco_v2.pth.tar", "Model")
    assert not found(bucket.write_down(planned("pictures", other), "four"))
    (elsewhere / "metrics" / "manifest.json").unlink()
    assert not found(bucket.write_down(plan, "five"))


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a\\..\\b", "manifest.json"])
def test_a_manifest_that_leads_out_of_its_folder_is_refused(
    bucket: Bucket, plan: Plan, name: str
) -> None:
    run = bucket.write_down(plan, "one")
    path = make(bucket, plan, "one", "make") / "model" / "manifest.json"
    document = json.loads(path.read_text())
    document["files"][name] = {"size": 1, "sha256": "0" * 64}
    path.write_text(json.dumps(document))

    with pytest.raises(DataError, match=r"make/.*refused"):
        found(run)


def test_a_damaged_manifest_is_named(bucket: Bucket, plan: Plan) -> None:
    run = bucket.write_down(plan, "one")
    path = make(bucket, plan, "one", "make") / "model" / "manifest.json"
    path.write_text("{")

    with pytest.raises(DataError, match=r"model/manifest\.json is not a manifest"):
        found(run)


def test_only_submitted_runs_in_that_store_are_asked_for(
    bucket: Bucket, plan: Plan, tmp_path: Path
) -> None:
    run = bucket.write_down(plan, "one")

    with pytest.raises(UsageError, match="does not lie in the store"):
        found(run, FolderStore(tmp_path / "elsewhere"))
    run.write_record(run.record.model_copy(update={"backend": "local", "artifacts": None}))
    with pytest.raises(UsageError, match="executed on this machine"):
        found(run, FolderStore(tmp_path))


def test_hundreds_of_cached_steps_cost_two_listings_and_few_reads(
    bucket: Bucket, toy: Stage[Any]
) -> None:
    plan = Plan("many", "digits")
    for number in range(150):
        plan.add(toy, f"step_{number}", toy.config(value=float(number)))
    for name in ("one", "two", "three"):
        bucket.write_down(plan, name)
        for step in plan:
            folder = bucket.pipeline(plan) / name / step.name.replace("_", "-") / "id"
            make_step(folder, toy, step.config)
    run = bucket.write_down(plan, "now")
    store = Counting(bucket.folder)

    here = found(run, store)

    assert len(here) == 300
    assert {place.origin and place.origin.partition("/")[0] for place in here.values()} == {
        sorted(bucket.runs.iterdir(), key=lambda path: Run(path).record.created)[2].name
    }
    assert len(store.lists) == 2
    assert len(store.reads) == 300 + 4  # the newest run's manifests, and the records


def test_earlier_runs_are_those_of_the_bucket_the_oldest_first(
    bucket: Bucket, plan: Plan, minio_server: MinioServer, bucket_url: str
) -> None:
    bucket.url = bucket_url
    for name in ("one", "two"):
        bucket.write_down(plan, name)
        make(bucket, plan, name, "make")
    bucket.upload(minio_server, bucket_url.removeprefix("s3://"))
    shutil.rmtree(bucket.runs)
    cluster = Cluster(ClusterOptions(root=f"{bucket_url}/{ROOT}"))

    earlier = earlier_runs(plan, cluster)

    assert [ClusterRun.of(run).run for run, _ in earlier] == ["one", "two"]
    assert [run.plan for run, _ in earlier] == [plan, plan]
    urls = [where["make", "model"].url for _, where in earlier]
    assert [url.startswith(f"{bucket_url}/{ROOT}/small-digits/") for url in urls] == [True, True]
    assert not [path for path in bucket.runs.iterdir() if not path.name.startswith(".")]
