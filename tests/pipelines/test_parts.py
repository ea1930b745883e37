"""Runs that are too large for one workflow: cut, begun part by part, one run for their user."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.core.errors import ClusterError, ExitCode, UsageError
from components.core.store import open_store
from pipelines.__main__ import main
from pipelines.backends.kubeflow.advance import Advance
from pipelines.backends.kubeflow.artifacts import find_artifacts
from pipelines.backends.kubeflow.compile import compile_plan
from pipelines.backends.kubeflow.compile_parts import compile_parts
from pipelines.backends.kubeflow.connection import Cluster
from pipelines.backends.kubeflow.cut import cut_plan
from pipelines.backends.kubeflow.next_parts import NextPartsConfig, next_parts_argv
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.backends.kubeflow.parts import Begun, StoredParts
from pipelines.backends.kubeflow.prune import prune
from pipelines.backends.kubeflow.record import ClusterRun
from pipelines.backends.kubeflow.status import refresh
from pipelines.backends.kubeflow.submit import cancel, retry, submit_plan
from pipelines.backends.kubeflow.weights import about
from pipelines.plan import Plan
from pipelines.recipes import Options, build_plan, load_recipe
from pipelines.runs.artifacts import StoredArtifacts
from pipelines.runs.bucket import open_bucket_run
from pipelines.runs.folder import Run
from tests.pipelines.pipeline_server import PipelineServer, ServedRun, pipeline_server
from tests.servers.minio import MinioServer

IMAGES = {name: f"registry.example/{name}@sha256:{'1' * 64}" for name in ("torch", "detectron2")}
SMALL = 33_000  # bytes of a workflow that takes two steps
PARTS = 5
FIRST = (1, 3)  # parts that read of no other
SECONDS = 60
ROOT = Path(__file__).parents[2]


def toys(**options: Any) -> Plan:
    return build_plan(load_recipe("toys"), Options(scale="digits", **options))


@pytest.fixture(scope="module")
def appendix() -> Plan:
    return build_plan(load_recipe("appendix"), Options())


@pytest.mark.parametrize("room", [60_000, 300_000, 1 << 20])
def test_each_step_is_in_one_part_and_reads_of_earlier_ones(appendix: Plan, room: int) -> None:
    weights = about(appendix)
    cuts = cut_plan(appendix, weights, room, "s3://bucket/runs")

    numbers = {step: n for n, cut in enumerate(cuts) for step in cut.plan.steps}
    assert numbers.keys() == appendix.steps.keys()
    assert sum(len(cut.plan.steps) for cut in cuts) == len(appendix.steps)
    for number, cut in enumerate(cuts):
        assert weights.of(name.replace("_", "-") for name in cut.plan.steps) <= room
        read = {output.step for output in cut.reads.values()}
        assert all(numbers[step] < number for step in read)
        assert read == set().union(*(appendix.steps[s].upstream for s in cut.plan.steps)) - {
            *cut.plan.steps
        }
    # What needs all the tables does not wait beside a table.
    assert list(cuts[-1].plan.steps) == ["report"]
    assert len(cuts) <= weights.whole / room * 1.25 + 2
    shared = [name for name in appendix.steps if name in ("supervised", "convert_moco_in1m")]
    assert {numbers[name] for name in shared} == {0}


def test_a_table_is_cut_as_little_as_can_be(appendix: Plan) -> None:
    cuts = cut_plan(appendix, about(appendix), 300_000, "s3://bucket/runs")
    for table in ("lvis", "coco_fpn", "coco_c4", "cityscapes"):
        mine = [any(s.startswith(table) for s in cut.plan.steps) for cut in cuts]
        steps = sum(name.startswith(table) for name in appendix.steps)
        assert 1 <= sum(mine) <= steps / 30 + 2, table
        assert sum(mine) == len(mine) - mine.index(True) - mine[::-1].index(True), table


def test_parts_are_compiled_to_fit_and_each_is_followed(world: Path, tmp_path: Path) -> None:
    options = ClusterOptions(images=IMAGES, workflow_size=SMALL)
    whole = compile_plan(toys(trials=2), tmp_path / "whole.yaml", options)
    assert not whole.fits(options)

    parts = compile_parts(toys(trials=2), whole, options)

    assert len(parts) == PARTS
    assert [part.number for part in parts] == [*range(1, PARTS + 1)]
    for part in parts:
        assert part.compiled.fits(options)
        specification, platform = yaml.safe_load_all(part.pipeline)
        tasks = specification["root"]["dag"]["tasks"]
        assert tasks.keys() - {"next-parts"} == {s.replace("_", "-") for s in part.cut.plan.steps}
        assert not tasks["next-parts"].get("dependentTasks")
        assert not tasks["next-parts"]["cachingOptions"].get("enableCache")
        (pod,) = (
            pod
            for name, pod in platform["platforms"]["kubernetes"]["deploymentSpec"][
                "executors"
            ].items()
            if "next-parts" in name
        )
        assert pod["secretAsEnv"] and pod["securityContext"]["runAsNonRoot"]
        assert (
            part.cut.reads.keys() <= specification["root"]["inputDefinitions"]["parameters"].keys()
        )
    assert [p.pipeline for p in compile_parts(toys(trials=2), whole, options)] == [
        p.pipeline for p in parts
    ]


def test_what_cannot_be_cut_further_is_refused(world: Path, tmp_path: Path) -> None:
    options = ClusterOptions(images=IMAGES, workflow_size=15_000)
    whole = compile_plan(toys(), tmp_path / "whole.yaml", options)
    with pytest.raises(UsageError, match=r"still too large.*Ways out: fewer trials"):
        compile_parts(toys(), whole, options)


def test_steps_are_left_out_with_all_that_only_they_use(world: Path, tmp_path: Path) -> None:
    compile_plan(toys(), tmp_path / "p.yaml", ClusterOptions(images=IMAGES))
    lost = ["measure-random-0", "make-random", "report"]

    pruned = prune((tmp_path / "p.yaml").read_text(), lost)

    specification, platform = yaml.safe_load_all(pruned)
    assert specification["root"]["dag"]["tasks"].keys() == {"make-moco-in1m", "measure-moco-in1m-0"}
    executors = specification["deploymentSpec"]["executors"]
    assert len(specification["components"]) == len(executors) == 2
    assert platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].keys() == {*executors}


def test_compile_writes_a_file_for_each_part_and_plan_says_how_many(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], runs: Path
) -> None:
    small = ["--cluster", f"workflow_size={SMALL}"]
    toys = ["toys", "--scale", "digits", "--trials", "2"]
    assert main(["compile", *toys, *small, "-o", str(tmp_path / "toys.yaml")]) == 0
    said = capsys.readouterr()
    files = [f"toys-{n}.yaml" for n in range(1, PARTS + 1)]
    assert sorted(path.name for path in tmp_path.glob("*.yaml")) == files
    assert "reads of part 1" in said.out
    assert "too many for one workflow" in said.err
    assert main(["plan", "appendix"]) == 0
    assert (
        "one run of about 3 parts, for one workflow has no room for 143" in capsys.readouterr().out
    )


@pytest.fixture
def served(
    world: Path,
    minio_server: MinioServer,
    bucket_url: str,
    tmp_path: Path,
    runs: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[PipelineServer, Cluster]]:
    """A pipeline server over a bucket, and no Kubernetes to ask."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    root = f"{bucket_url}/v2"
    with pipeline_server(tmp_path / "served", root) as server:
        options = ClusterOptions(
            server=server.url,
            root=root,
            images=IMAGES,
            workflow_size=SMALL,
            store_endpoint=os.environ["MOCO_S3_ENDPOINT"],
        )
        yield server, Cluster(options)


def found(run: Run) -> StoredArtifacts:
    return find_artifacts(run, open_store(ClusterRun.of(run).store))


def states(run: Run, cluster: Cluster) -> dict[str, str]:
    refresh(run, cluster)
    return {step: status.state for step, status in run.statuses().items()}


def drive(
    server: PipelineServer, run: Run, cluster: Cluster, failing: tuple[str, ...] = ()
) -> None:
    """Execute what has begun, and begin what can be, until nothing more can."""
    while fresh := [one for one in server.runs.values() if one.state == "RUNNING"]:
        for one in fresh:
            server.execute(one, failing)
        Advance(run, cluster).begin()


def execute_first(server: PipelineServer) -> None:
    """Execute the parts that read of no other, whose followers then still run."""
    for one in [*server.runs.values()]:
        server.execute(one)
        one.state = "RUNNING"


def test_a_run_in_parts_is_one_run(
    served: tuple[PipelineServer, Cluster], runs: Path, tmp_path: Path
) -> None:
    server, cluster = served
    run = submit_plan(toys(trials=2), cluster, runs)

    assert [one.name for one in server.runs.values()] == [
        f"{run.id}-part-{number}-{ClusterRun.of(run).run[:8]}" for number in FIRST
    ]
    assert set(states(run, cluster).values()) == {"waiting"}
    assert "part 4 of the run begins when" in run.status("measure_moco_in1m_1").reason
    drive(server, run, cluster)

    assert len(server.runs) == PARTS
    assert set(states(run, cluster).values()) == {"finished"}
    assert run.state == "finished"
    artifacts = found(run)
    assert len(artifacts) == 6 * 2 + 2
    report = artifacts["report", "report"].manifest
    assert report is not None and len(report.inputs) == 4
    # The lineage goes on through the parts.
    measured = report.inputs["metrics.toys__random__short__1"]
    assert measured.inputs["model"].name == "toy.model"

    # Whoever has the bucket has the run.
    other = open_bucket_run(
        ClusterRun.of(run).artifacts,
        cluster.store(ClusterRun.of(run).artifacts),
        tmp_path / "other",
    )
    assert set(states(other, cluster).values()) == {"finished"}
    assert found(other).keys() == artifacts.keys()


def test_what_fails_holds_back_what_depends_on_it_and_is_tried_again(
    served: tuple[PipelineServer, Cluster], runs: Path
) -> None:
    server, cluster = served
    run = submit_plan(toys(trials=2), cluster, runs)
    drive(server, run, cluster, failing=("make-random",))

    after = states(run, cluster)
    assert run.state == "failed"
    lost = {"make_random", "measure_random_0", "measure_random_1", "report"}
    assert {step for step, state in after.items() if state != "finished"} == lost
    assert after["make_random"] == "failed"
    assert {after[step] for step in lost - {"make_random"}} == {"skipped"}
    assert run.status("measure_random_0").reason == "make_random failed"
    before = len(server.runs)

    retry(run, cluster)

    with pytest.raises(UsageError, match="is running"):
        retry(run, cluster)
    # Who tried it again at the same moment has come too late.
    assert not StoredParts(open_store(ClusterRun.of(run).artifacts), "").claim(PARTS + 1)
    assert states(run, cluster)["measure_random_1"] == "waiting"
    drive(server, run, cluster)
    assert set(states(run, cluster).values()) == {"finished"}
    ran = [task for one in [*server.runs.values()][before:] for task in one.tasks]
    assert sorted(ran) == sorted(step.replace("_", "-") for step in lost)
    assert len(found(run)) == 6 * 2 + 2


def test_a_cancelled_run_begins_nothing_more_and_can_go_on(
    served: tuple[PipelineServer, Cluster], runs: Path
) -> None:
    server, cluster = served
    run = submit_plan(toys(trials=2), cluster, runs)
    execute_first(server)
    cancel(run, cluster)
    assert {one.state for one in server.runs.values()} == {"CANCELED"}
    Advance(run, cluster).begin()

    assert len(server.runs) == len(FIRST)
    assert {*states(run, cluster).values()} == {"finished", "interrupted", "skipped"}
    assert run.state == "interrupted"

    retry(run, cluster)
    drive(server, run, cluster)
    assert set(states(run, cluster).values()) == {"finished"}


def test_a_part_that_two_begin_runs_once(
    served: tuple[PipelineServer, Cluster], runs: Path
) -> None:
    """The second one begins it between the first one's look and its word."""
    server, cluster = served
    run = submit_plan(toys(trials=2), cluster, runs)
    execute_first(server)
    mine = Advance(run, cluster)
    raced: list[str] = []

    def race(started: ServedRun) -> None:
        if "-part-2-" in started.name and not raced:
            raced.append(started.id)
            mine.parts.begin(2, Begun(run="run-of-the-other"))

    server.on_start = race
    server.runs["run-of-the-other"] = ServedRun("run-of-the-other", "theirs", "", {})
    mine.begin()

    assert raced and server.runs[raced[0]].state == "CANCELED"
    assert mine.look().places.runs[2].run == "run-of-the-other"


def _on_gpus(run: ServedRun) -> int:
    specification, *_ = yaml.safe_load_all(run.pipeline)
    return len(specification["root"]["dag"]["tasks"].keys() - {"report", "next-parts"})


def test_no_more_steps_on_gpus_run_at_a_time_than_were_asked_for(
    served: tuple[PipelineServer, Cluster], runs: Path
) -> None:
    """All steps of the toys but the report want GPUs."""
    server, cluster = served
    options = cluster.options.derive(workflow_size=ClusterOptions().workflow_size)
    wide = Cluster(options)
    whole = submit_plan(toys(trials=2), wide, runs, parallel=6)
    assert not ClusterRun.of(whole).cut
    server.runs.clear()
    run = submit_plan(toys(trials=2), wide, runs, parallel=3)
    assert ClusterRun.of(run).cut

    most = 0
    ended: set[str] = set()
    while going := [one for one in server.runs.values() if one.id not in ended]:
        steps = [_on_gpus(one) for one in going]
        assert sum(steps) <= 3 or len(going) == 1
        most = max(most, sum(steps))
        server.execute(going[0])
        ended.add(going[0].id)
        Advance(run, wide).begin()
    assert most == 3
    assert set(states(run, wide).values()) == {"finished"}


def follower(run: Run, cluster: Cluster) -> subprocess.Popen[str]:
    """Follow the first part in a process of its own, as its pod does."""
    options = cluster.options.model_copy(update={"server_in_cluster": cluster.options.server})
    told = NextPartsConfig.of(1, options).derive(seconds=0.2)
    argv = [sys.executable, *next_parts_argv(told, ClusterRun.of(run).artifacts)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
    }
    return subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True)


def test_followers_begin_the_parts_through_restarts_of_the_server_and_kills(
    served: tuple[PipelineServer, Cluster], runs: Path
) -> None:
    """Two at once; one is killed when its part has begun and nobody has written that down."""
    server, cluster = served
    run = submit_plan(toys(trials=2), cluster, runs)
    killed: list[subprocess.Popen[str]] = []

    def kill(started: ServedRun) -> None:
        if "-part-2-" in started.name and killed:
            killed[0].kill()
            killed[0].wait()

    server.on_start = kill
    execute_first(server)
    killed.append(follower(run, cluster))
    killed[0].wait(SECONDS)
    assert killed[0].returncode == -signal.SIGKILL
    assert len(server.runs) == len(FIRST) + 1
    assert StoredParts(cluster.store(ClusterRun.of(run).artifacts), "").all()[2][1] is None

    server.stop()
    both = [follower(run, cluster) for _ in range(2)]
    time.sleep(2)
    server.start()
    for process in both:
        assert process.wait(SECONDS) == 0, process.communicate()

    assert len(server.named("-part-2-")) == 1
    drive(server, run, cluster)
    for part in range(1, PARTS + 1):
        (one,) = (r for r in server.named(f"-part-{part}-") if r.state != "CANCELED")
        assert one.state == "SUCCEEDED"
    assert set(states(run, cluster).values()) == {"finished"}


def test_a_follower_that_may_not_start_runs_says_so_and_ends(
    served: tuple[PipelineServer, Cluster], runs: Path
) -> None:
    server, cluster = served
    run = submit_plan(toys(trials=2), cluster, runs)
    execute_first(server)
    server.refused = ["POST runs"]

    refused = follower(run, cluster)
    _, said = refused.communicate(timeout=SECONDS)

    assert refused.returncode == ClusterError.exit_code
    assert "this user may not (this account may not create runs)" in said
    assert "Traceback" not in said
    server.refused = []
    for served_run in server.runs.values():
        served_run.tasks["next-parts"] = served_run.state = "FAILED"
    assert states(run, cluster)["measure_moco_in1m_1"] == "skipped"
    assert f"moco rerun {run.id} --failed" in run.status("measure_moco_in1m_1").reason
    retry(run, cluster)
    drive(server, run, cluster)
    assert set(states(run, cluster).values()) == {"finished"}


def test_a_submission_that_the_server_refuses_leaves_nothing(
    served: tuple[PipelineServer, Cluster], runs: Path, bucket_url: str
) -> None:
    server, cluster = served
    server.refused = ["POST runs"]
    with pytest.raises(ClusterError, match="this user may not"):
        submit_plan(toys(trials=2), cluster, runs)
    assert not [entry for entry in open_store(bucket_url).list() if "parts" in entry.key]
    assert not [*runs.glob("toys-*")]


def test_a_part_by_itself_is_not_followed(world: Path) -> None:
    argv = next_parts_argv(NextPartsConfig.of(1, ClusterOptions()), "")
    ended = subprocess.run([sys.executable, *argv], capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert "nothing follows" in ended.stderr
    wrong = subprocess.run([sys.executable, *argv[:3]], capture_output=True, text=True, check=False)
    assert wrong.returncode == ExitCode.USAGE
    assert "expected --config JSON --run URL" in wrong.stderr
