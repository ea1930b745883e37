"""`moco pull`: verified, continued, bundled, from a real MinIO."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import (
    DataError,
    DiskFullError,
    ExitCode,
    NotWritableError,
    StoreError,
    UsageError,
)
from components.core.kind import ArtifactKind
from components.core.manifest import file_sha256, hash_folder, verify
from components.core.stage import Stage
from components.core.store import FolderStore, open_store
from components.core.store.keys import PART_SUFFIX
from pipelines.__main__ import main
from pipelines.backends.base import Settings
from pipelines.backends.kubeflow.backend import Kubeflow
from pipelines.backends.kubeflow.record import ClusterRun
from pipelines.plan import Plan
from pipelines.recipes import Options, build_plan, load_recipe
from pipelines.runs import transfer
from pipelines.runs.folder import Run
from pipelines.runs.pull import Pulled, Selection, ensure_metrics, pull
from pipelines.runs.record import StepStatus
from tests.benchmarks.store import distant
from tests.pipelines.conftest import ROOT as REPOSITORY
from tests.pipelines.submitting import Bucket, Opened, make_step
from tests.servers.minio import MinioServer

Capture = pytest.CaptureFixture[str]
FILES = 300
METRICS: tuple[ArtifactKind, ...] = ("Metrics",)


@pytest.fixture(scope="module")
def template(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe of toys executed, and once more with two steps from the cache."""
    folder = tmp_path_factory.mktemp("template")
    bucket = Bucket(folder / "bucket", folder / "runs")
    first, launcher = bucket.submit(build_plan(load_recipe("toys"), Options(scale="digits")))
    bucket.submit(first.plan, launcher, ["make-random", "measure-random-0"])
    return folder


@pytest.fixture
def name(minio_server: MinioServer, bucket_url: str) -> str:
    """The name of an empty bucket."""
    return bucket_url.removeprefix("s3://")


@pytest.fixture
def submitted(
    template: Path, tmp_path: Path, runs: Path, minio_server: MinioServer, name: str
) -> tuple[Run, Run]:
    """Both runs in a bucket, and their folders here, in which nothing is yet."""
    shutil.copytree(template / "bucket", tmp_path / "bucket")
    shutil.copytree(template / "runs", runs)
    bucket = Bucket(tmp_path / "bucket", runs)
    bucket.upload(minio_server, name)
    found = sorted(map(Run, runs.iterdir()), key=lambda run: run.record.created)
    for run in found:
        move(run, name)
    return found[0], found[1]


def move(run: Run, name: str) -> None:
    """Say in a run's record which bucket it is in."""
    place = ClusterRun.of(run)
    assert place
    url = place.artifacts.replace("s3://mlpipeline", f"s3://{name}")
    cluster = place.model_copy(update={"artifacts": url})
    cluster.write(run)


@pytest.fixture
def large(toy: Stage[Any], tmp_path: Path, runs: Path, minio_server: MinioServer, name: str) -> Run:
    """A run with one artifact of many files."""
    bucket = Bucket(tmp_path / "bucket", runs, f"s3://{name}")
    plan = Plan("large", "digits")
    plan.add(toy, "only", toy.config())
    run = bucket.write_down(plan, "one")
    folder = bucket.pipeline(plan) / "one" / "only" / "id"
    make_step(folder, toy, toy.config(), files=FILES, size=5000)
    # As fast as the tests need it; where files have hashes in the store it makes no difference.
    open_store(f"s3://{name}").put_folder(tmp_path / "bucket", "")
    return run


def key(run: Run, step: str, port: str) -> str:
    """Return the key in the bucket of an artifact."""
    store = open_store(ClusterRun.of(run).artifacts)
    found = next(
        entry.key for entry in store.list(step.replace("_", "-")) if entry.key.split("/")[2] == port
    )
    path = ClusterRun.of(run).artifacts.partition("://")[2].partition("/")[2]
    return f"{path}/{'/'.join(found.split('/')[:3])}"


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Return what changes when a file is written anew."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != PART_SUFFIX
    }


def test_everything_comes_verified_into_the_layout_of_a_local_run(
    submitted: tuple[Run, Run],
) -> None:
    run, _ = submitted

    pulled = pull(run, Kubeflow(Settings()))

    assert set(pulled.fetched) == {
        f"{step.name}.{port}" for step in run.plan for port in step.stage.outputs
    }
    assert not pulled.missing
    for step in run.plan:
        for port, path in run.artifacts(step.name, step.stage.outputs).items():
            if port == "html":
                report = run.artifact(step.name, "report")
                assert path.read_bytes() == (report / "index.html").read_bytes()
            else:
                assert verify(path).stage == step.stage.name
    assert {status.state for status in run.statuses().values()} == {"finished"}
    assert run.state == "finished"


def test_pulling_again_fetches_nothing(submitted: tuple[Run, Run]) -> None:
    run, _ = submitted
    first = pull(run, Kubeflow(Settings()))
    before = stamps(run.folder / "make_random")

    again = pull(run, Kubeflow(Settings()))

    assert (again.fetched, again.files) == ((), 0)
    assert set(again.kept) == set(first.fetched)
    assert stamps(run.folder / "make_random") == before


def test_what_the_cache_gave_comes_from_the_run_that_made_it(submitted: tuple[Run, Run]) -> None:
    first, second = submitted

    pull(second, Kubeflow(Settings()))

    status = second.status("measure_random_0")
    assert (status.state, status.origin) == ("reused", f"{first.id}/measure_random_0")
    assert second.status("measure_moco_in1m_0").state == "finished"
    verify(second.artifact("measure_random_0", "metrics"))
    assert second.maker("measure_random_0") == (first, "measure_random_0")


def test_what_is_known_of_a_step_is_not_overwritten(submitted: tuple[Run, Run]) -> None:
    run, _ = submitted
    known = StepStatus(state="finished", attempt=3, exit_code=0)
    run.write_status("make_random", known)
    run.write_status("measure_random_0", StepStatus(state="running", attempt=2))

    pull(run, Kubeflow(Settings()))

    assert run.status("make_random") == known
    assert run.status("measure_random_0") == StepStatus(state="finished", attempt=2)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(steps=("report",)), {"report.report", "report.html"}),
        (Selection(steps=("make_random",), ports=("model",)), {"make_random.model"}),
        (
            Selection(steps=("report", "measure_random_0"), kinds=METRICS),
            {"measure_random_0.metrics"},
        ),
    ],
)
def test_only_what_is_asked_for_is_fetched(
    submitted: tuple[Run, Run], selection: Selection, expected: set[str]
) -> None:
    run, _ = submitted

    assert set(pull(run, Kubeflow(Settings()), selection).fetched) == expected
    found = {
        f"{path.parent.parent.name}.{path.parent.name}"
        for path in run.folder.glob("*/*/manifest.json")
    }
    assert found == expected - {"report.html"}


def test_a_tampered_artifact_is_named_and_the_others_come(
    submitted: tuple[Run, Run], minio_server: MinioServer, name: str, tmp_path: Path
) -> None:
    run, _ = submitted
    client = minio_server.client()
    victim = f"{key(run, 'measure_random_0', 'metrics')}/metrics.json"
    client.fget_object(name, victim, str(tmp_path / "metrics.json"))
    text = (tmp_path / "metrics.json").read_text()
    (tmp_path / "metrics.json").write_text(text.replace("10.0", "99.0"))
    client.fput_object(name, victim, str(tmp_path / "metrics.json"))

    with pytest.raises(DataError, match=r"measure_random_0\.metrics: .*metrics\.json is not what"):
        pull(run, Kubeflow(Settings()))

    folder = run.artifact("measure_random_0", "metrics")
    assert list(folder.iterdir()) == []
    verify(run.artifact("measure_moco_in1m_0", "metrics"))

    (tmp_path / "metrics.json").write_text(text)
    client.fput_object(name, victim, str(tmp_path / "metrics.json"))
    assert pull(run, Kubeflow(Settings())).fetched == ("measure_random_0.metrics",)


class SpoiltOnce(FolderStore):
    """A store whose first answer for each file is wrong."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.asked: list[str] = []

    def get(self, key: str, destination: Path) -> str:
        digest = super().get(key, destination)
        if key not in self.asked:
            destination.write_bytes(b"?" * destination.stat().st_size)
            digest = file_sha256(destination)
        self.asked.append(key)
        return digest


def test_a_file_that_comes_wrong_is_fetched_once_more(
    toy: Stage[Any], runs: Path, tmp_path: Path
) -> None:
    bucket = Bucket(tmp_path / "bucket", runs, str(tmp_path / "bucket"))
    plan = Plan("small", "digits")
    plan.add(toy, "only", toy.config())
    run = bucket.write_down(plan, "one")
    make_step(bucket.pipeline(plan) / "one" / "only" / "id", toy, toy.config(), files=3)
    store = SpoiltOnce(bucket.pipeline(plan))

    pull(run, Opened(lambda _: store))

    assert len(verify(run.artifact("only", "model")).files) == 3
    assert sorted(store.asked) == sorted([*set(store.asked)] * 2)


def test_what_was_changed_here_is_fetched_again(submitted: tuple[Run, Run]) -> None:
    run, _ = submitted
    pull(run, Kubeflow(Settings()))
    model = run.artifact("make_random", "model")
    (model / "model.json").write_text('{"value": 9.0}')
    (model / "note.txt").write_text("not of the artifact")
    (run.artifact("measure_random_0", "metrics") / "manifest.json").write_text("{}")

    pulled = pull(run, Kubeflow(Settings()))

    assert set(pulled.fetched) == {"make_random.model", "measure_random_0.metrics"}
    assert pulled.files == 1
    verify(model)
    verify(run.artifact("measure_random_0", "metrics"))


def test_a_killed_pull_goes_on_where_it_was(
    large: Run, world: Path, minio_server: MinioServer
) -> None:
    model = large.artifact("only", "model")
    with distant(minio_server, 0.2) as far:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines", "pull", large.id],
            env={
                **os.environ,
                **far.environment(),
                "PYTHONPATH": os.pathsep.join([str(world), str(REPOSITORY)]),
            },
            cwd=REPOSITORY,
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + 120
        while len(stamps(model)) < 30 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said
    before = stamps(model)
    assert 30 <= len(before) < FILES
    assert not (model / "manifest.json").exists()
    assert large.status("only").state == "waiting"

    pulled = pull(large, Kubeflow(Settings()))

    assert pulled.files == FILES - len(before) + 1  # and the metrics
    after = stamps(model)
    assert {name: after[name] for name in before} == before
    assert len(verify(model).files) == FILES
    assert not list(large.folder.rglob(f"*{PART_SUFFIX}"))


def test_two_pulls_at_once_fetch_each_file_once(large: Run) -> None:
    done: list[Pulled] = []
    threads = [
        threading.Thread(target=lambda: done.append(pull(large, Kubeflow(Settings()))))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(pulled.files for pulled in done) == [0, FILES + 1]
    assert len(verify(large.artifact("only", "model")).files) == FILES


def test_a_link_that_leads_elsewhere_is_not_followed(large: Run, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    model = large.artifact("only", "model")
    model.mkdir(parents=True)
    (model / "part-0").symlink_to(elsewhere)

    with pytest.raises(StoreError, match="is a link"):
        pull(large, Kubeflow(Settings()))

    assert not list(elsewhere.iterdir())


def test_keys_that_would_leave_the_folder_are_refused(
    large: Run, minio_server: MinioServer, name: str, tmp_path: Path
) -> None:
    victim = f"{key(large, 'only', 'model')}/manifest.json"
    client = minio_server.client()
    client.fget_object(name, victim, str(tmp_path / "manifest.json"))
    document = json.loads((tmp_path / "manifest.json").read_text())
    document["files"]["../../../evil"] = {"size": 4, "sha256": "0" * 64}
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    client.fput_object(name, victim, str(tmp_path / "manifest.json"))
    (tmp_path / "evil").write_text("evil")
    client.fput_object(name, f"{key(large, 'only', 'model')}/evil", str(tmp_path / "evil"))

    with pytest.raises(DataError, match=r"names the file '\.\./\.\./\.\./evil': refused"):
        pull(large, Kubeflow(Settings()))

    assert not list(large.folder.glob("only/*"))


def test_a_full_disk_is_refused_before_anything_is_fetched(
    large: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage(large.folder).free
    monkeypatch.setattr(transfer, "SPARE", free)

    with pytest.raises(DiskFullError, match="have to be fetched"):
        pull(large, Kubeflow(Settings()))

    assert not list(large.folder.glob("only/*/*"))


def test_a_bundle_is_the_run_without_its_cluster(
    submitted: tuple[Run, Run], tmp_path: Path
) -> None:
    _, run = submitted

    pulled = pull(run, Kubeflow(Settings()), destination=tmp_path / "bundle")

    bundle = pulled.run
    assert bundle.folder == tmp_path / "bundle" / run.id
    assert (bundle.plan, bundle.state) == (run.plan, "finished")
    assert bundle.status("make_random").state == "reused"
    assert not list(run.folder.glob("*/*/manifest.json"))
    verify(bundle.artifact("report", "report"))

    again = pull(run, Kubeflow(Settings()), destination=tmp_path / "bundle")
    assert (again.files, set(again.kept)) == (0, set(pulled.fetched))


def test_what_was_pulled_whole_is_bundled_without_the_store(
    submitted: tuple[Run, Run], tmp_path: Path
) -> None:
    run, _ = submitted
    pull(run, Kubeflow(Settings()))

    def no_store(_: str) -> Any:
        raise StoreError("there is no network")

    unreachable = Opened(no_store)

    bundle = pull(run, unreachable, destination=tmp_path / "bundle").run

    for step in run.plan:
        for port, path in run.artifacts(step.name, step.stage.outputs).items():
            copy = bundle.artifacts(step.name, step.stage.outputs)[port]
            if path.is_file():
                assert copy.read_bytes() == path.read_bytes()
            else:
                assert hash_folder(copy) == hash_folder(path)


def test_a_run_of_this_machine_is_bundled_verified(
    world: Path, runs: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["run", "toys", "--scale", "digits", "--rows", "random"]) == 0
    [run] = [Run(path.parent) for path in runs.glob("*/run.json")]

    assert main(["pull", run.id, "-o", str(tmp_path / "bundle")]) == 0
    bundle = Run(tmp_path / "bundle" / run.id)
    assert bundle.statuses() == run.statuses()
    verify(bundle.artifact("measure_random_0", "metrics"))

    capsys.readouterr()
    assert main(["pull", run.id]) == ExitCode.USAGE
    assert "its artifacts are in" in capsys.readouterr().err
    (run.artifact("make_random", "model") / "model.json").write_text("changed")
    assert main(["pull", run.id, "-o", str(tmp_path / "other")]) == ExitCode.BAD_DATA
    assert "make_random.model" in capsys.readouterr().err


def test_a_bundle_never_mixes_runs(submitted: tuple[Run, Run], tmp_path: Path) -> None:
    first, second = submitted
    bundle = pull(first, Kubeflow(Settings()), destination=tmp_path).run
    shutil.move(bundle.folder, tmp_path / second.id)

    with pytest.raises(NotWritableError, match="holds another run"):
        pull(second, Kubeflow(Settings()), destination=tmp_path)
    (tmp_path / "mine" / first.id).mkdir(parents=True)
    (tmp_path / "mine" / first.id / "thesis.tex").touch()
    with pytest.raises(NotWritableError, match="holds something else"):
        pull(first, Kubeflow(Settings()), destination=tmp_path / "mine")


def test_the_secret_of_the_store_is_nowhere_in_a_bundle(
    submitted: tuple[Run, Run], tmp_path: Path, minio_server: MinioServer, capsys: Capture
) -> None:
    run, _ = submitted

    assert main(["pull", run.id, "--output", str(tmp_path / "bundle")]) == 0

    said = capsys.readouterr()
    texts = [path.read_bytes() for path in (tmp_path / "bundle").rglob("*") if path.is_file()]
    assert len(texts) > 10
    for text in (*texts, said.out.encode(), said.err.encode()):
        assert minio_server.secret_key.encode() not in text
        assert b"a-secret" not in text


def test_the_command_says_what_it_costs_what_came_and_what_is_next(
    submitted: tuple[Run, Run], capsys: Capture
) -> None:
    run, _ = submitted

    assert main(["pull", run.id, "--stage", "toy", "--port", "metrics"]) == 0

    said = capsys.readouterr()
    assert f"{run.id}: 4 artifacts to fetch, 4 files" in said.err
    assert "  measure_random_0  metrics" in said.out
    assert f"Next: moco report {run.id}" in said.out
    assert main(["pull", run.id, "--metrics"]) == 0
    said = capsys.readouterr()
    assert "nothing to fetch" in said.err
    assert "4 were there already, verified" in said.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--stage", "measure_randm_0"], "did you mean 'measure_random_0'"),
        (["--port", "metric"], "did you mean 'metrics'"),
    ],
)
def test_a_name_of_nothing_is_refused_with_the_nearest(
    submitted: tuple[Run, Run], capsys: Capture, arguments: list[str], words: str
) -> None:
    assert main(["pull", submitted[0].id, *arguments]) == ExitCode.USAGE
    assert words in capsys.readouterr().err


def test_an_unfinished_run_gives_what_is_finished(
    submitted: tuple[Run, Run], minio_server: MinioServer, name: str, capsys: Capture
) -> None:
    run, _ = submitted
    gone = key(run, "report", "report").rpartition("/")[0]
    store = open_store(f"s3://{name}")
    store.delete(gone)
    for entry in store.list(key(run, "measure_random_0", "model")):
        if entry.key.endswith("model.json"):
            store.delete(entry.key)

    assert main(["pull", run.id]) == 0

    assert "Not finished: measure_random_0, report" in capsys.readouterr().out
    assert run.status("measure_random_0").state == "waiting"
    assert run.status("make_random").state == "finished"
    assert run.state == "running"


def test_metrics_are_pulled_once_and_only_they(submitted: tuple[Run, Run]) -> None:
    run, _ = submitted

    assert ensure_metrics(run, Kubeflow(Settings())) == ""

    assert sorted(path.parent.parent.name for path in run.folder.glob("*/*/manifest.json")) == [
        "measure_moco_in1m_0",
        "measure_random_0",
    ]

    def no_store(_: str) -> Any:
        raise StoreError("there is no network")

    unreachable = Opened(no_store)

    assert ensure_metrics(run, unreachable) == ""


def test_metrics_that_cannot_be_fetched_are_told_of(submitted: tuple[Run, Run]) -> None:
    run, _ = submitted

    def no_store(_: str) -> Any:
        raise StoreError("there is no network")

    unreachable = Opened(no_store)

    with pytest.raises(StoreError, match="no network"):
        ensure_metrics(run, unreachable)
    ensure_metrics(run, Kubeflow(Settings()), cells=("toys__random__short__0",))
    said = ensure_metrics(run, unreachable)
    assert said == f"1 cell of run {run.id} could not be fetched: there is no network"
    run.write_status("measure_moco_in1m_0", StepStatus(state="failed"))
    assert ensure_metrics(run, unreachable) == ""


def test_a_run_that_nobody_submitted_needs_nothing(
    toy: Stage[Any], runs: Path, tmp_path: Path
) -> None:
    plan = Plan("small", "digits")
    plan.add(toy, "only", toy.config())
    run = Bucket(tmp_path / "bucket", runs).write_down(plan, "one")
    run.write_record(run.record.model_copy(update={"backend": "local", "artifacts": None}))

    assert ensure_metrics(run, Kubeflow(Settings())) == ""
    with pytest.raises(UsageError, match="executed on this machine"):
        pull(run, Opened(open_store))
