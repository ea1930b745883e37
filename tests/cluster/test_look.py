"""How submitted runs are said to go, on a real Kubeflow Pipelines server.

A tiny run takes one to two minutes there, so those of most tests are submitted together.
"""

import http.server
import re
import secrets
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from components.core.errors import ClusterError, ExitCode
from pipelines.__main__ import main
from pipelines.backends.kubeflow.connection import Cluster
from pipelines.backends.kubeflow.record import ClusterRun
from pipelines.backends.kubeflow.server import Server
from pipelines.backends.kubeflow.status import refresh
from pipelines.backends.kubeflow.submit import retry
from pipelines.runs.folder import Run
from tests.cluster.kubeflow import WRITES, Does, Kubeflow, kubeflow, toy, world
from tests.cluster.troubled import NOWHERE

__all__ = ["kubeflow", "toy", "world"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

Capture = pytest.CaptureFixture[str]

ERROR = '{"event": "image 7.jpg is truncated; remove it", "level": "error", "exit_code": 65}'
TICKS = (
    'i=0; while test "$i" -lt 25; do '
    'echo "{\\"event\\": \\"progress\\", \\"done\\": $i, \\"total\\": 25}"; i=$((i+1)); sleep 1; '
    f"done; {WRITES}"
)
STEPS = {
    "broken": {
        "make_it": Does(),
        "break_it": Does(f"echo first; echo '{ERROR}' >&2; exit 65", after="make_it"),
        "use_it": Does(after="break_it"),
        "other": Does(after="make_it"),
    },
    "hungry": {
        "eat": Does("echo eating; tail /dev/zero", memory="128Mi"),
        "use": Does(after="eat"),
    },
    "careless": {"make": Does('echo done; mkdir -p "$1"; echo 1 > "$1/weights"')},
    "unprepared": {"make": Does(memory=None), "use": Does(after="make")},
    "imageless": {"make": Does(image=NOWHERE), "use": Does(after="make")},
    "greedy": {"make": Does(gpus=64)},
    "long": {"make": Does(TICKS), "use": Does(after="make")},
}


@pytest.fixture(scope="module")
def runs(kubeflow: Kubeflow, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """Submit the runs that most tests look at."""
    folder = tmp_path_factory.mktemp("looked-at")
    submitted = {name: kubeflow.submit(folder, steps) for name, steps in STEPS.items()}
    yield submitted
    for run in submitted.values():
        with suppress(ClusterError):  # it has ended
            Server(kubeflow.cluster).terminate(ClusterRun.of(run))


@pytest.fixture
def moco(
    kubeflow: Kubeflow, runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Make the commands find the runs and their cluster."""
    options = tmp_path / "cluster.json"
    options.write_text(kubeflow.cluster.options.to_json())
    monkeypatch.setenv("MOCO_CLUSTER", str(options))
    monkeypatch.setenv("MOCO_RUNS", str(runs["broken"].folder.parent))


def states(run: Run) -> dict[str, str]:
    return {name: status.state for name, status in run.statuses().items()}


def forget(run: Run) -> None:
    """Forget what was known of a run's steps."""
    for name in run.record.steps:
        (run.folder / name / "status.json").unlink(missing_ok=True)


def test_a_lost_pod_is_another_attempt(kubeflow: Kubeflow, runs: dict[str, Run]) -> None:
    run = runs["long"]
    kubeflow.wait(run, lambda: run.status("make").state == "running")
    (pod,) = kubeflow.pods(run)
    kubeflow.admin.core.delete_namespaced_pod(pod, ClusterRun.of(run).namespace)

    again = kubeflow.wait(run, lambda: run.status("make").attempt == 2 and run.status("make"))
    kubeflow.wait(run, lambda: run.status("make").state == "running")
    lost = run.status("make").reason
    assert lost in ("after attempt 1: pod deleted", "after attempt 1: its pod was lost")
    kubeflow.end(run)

    assert again.state in ("waiting", "running")
    assert states(run) == {"make": "finished", "use": "finished"}
    assert run.status("make").attempt == 2
    assert run.state == "finished"


def test_a_failed_step_has_its_own_code_and_words(kubeflow: Kubeflow, runs: dict[str, Run]) -> None:
    run = runs["broken"]
    kubeflow.end(run)

    assert run.state == "failed"
    assert run.record.ended
    assert states(run) == {
        "make_it": "finished",
        "break_it": "failed",
        "use_it": "skipped",
        "other": "finished",
    }
    failed = run.status("break_it")
    assert failed.exit_code == ExitCode.BAD_DATA
    assert "image 7.jpg is truncated; remove it" in failed.reason
    assert "launcher" not in failed.reason and "argo" not in failed.reason
    assert failed.seconds is not None and failed.seconds < 60
    assert run.status("use_it").reason == "break_it failed"


def test_memory_that_was_not_enough_is_named(kubeflow: Kubeflow, runs: dict[str, Run]) -> None:
    run = runs["hungry"]
    kubeflow.end(run)

    failed = run.status("eat")
    assert failed.exit_code == 137
    assert "eating" in failed.reason
    assert failed.reason.endswith(
        "the memory limit of 128Mi was exceeded; submit it with more: --parameter memory_toy=SIZE"
    )


def test_an_output_that_was_not_written_is_a_failure(
    kubeflow: Kubeflow, runs: dict[str, Run]
) -> None:
    run = runs["careless"]
    kubeflow.end(run)

    assert run.state == "failed"  # the server says that it went well
    failed = run.status("make")
    assert failed.reason.startswith("it ended well, but model and metrics did not reach the store")
    assert f"moco rerun {run.id} make" in failed.reason


def test_what_could_not_be_prepared_says_why(kubeflow: Kubeflow, runs: dict[str, Run]) -> None:
    run = runs["unprepared"]
    kubeflow.end(run)

    assert states(run) == {"make": "failed", "use": "skipped"}
    assert "quantities must match the regular expression" in run.status("make").reason


def test_an_image_that_does_not_exist_is_named_and_the_run_can_be_stopped(
    kubeflow: Kubeflow, runs: dict[str, Run]
) -> None:
    run = runs["imageless"]
    kubeflow.wait(run, lambda: "cannot be pulled" in run.status("make").reason)

    status = run.status("make")
    assert status.state == "waiting"
    assert status.reason.startswith(f"the image {NOWHERE} cannot be pulled: ")
    assert f"waits for it for ever: moco cancel {run.id}" in status.reason

    Server(kubeflow.cluster).terminate(ClusterRun.of(run))
    kubeflow.end(run)
    assert run.state == "interrupted"
    assert states(run) == {"make": "interrupted", "use": "skipped"}
    assert run.status("make").reason == "the run was stopped"


def test_gpus_that_no_node_has_are_waited_for(kubeflow: Kubeflow, runs: dict[str, Run]) -> None:
    run = runs["greedy"]
    kubeflow.wait(run, lambda: "Insufficient nvidia.com/gpu" in run.status("make").reason)

    assert run.status("make").reason.startswith("no node can take it: ")
    assert run.status("make").state == "waiting"


def test_a_pod_that_is_not_let_in_says_who_refuses_it(kubeflow: Kubeflow, tmp_path: Path) -> None:
    step = f"refuse_{secrets.token_hex(3)}"
    with refused(kubeflow, step):
        run = kubeflow.submit(tmp_path, {step: Does(), "use": Does(after=step)})
        kubeflow.wait(
            run, lambda: re.search(r"; refused \d+ times so far", run.status(step).reason)
        )
        status, known = run.status(step), states(run)

    assert status.reason.startswith("its pod is refused: ")
    assert "this pod is not wanted here" in status.reason
    assert (status.state, status.attempt) == ("waiting", 0)
    assert known == {step: "waiting", "use": "waiting"}
    kubeflow.wait(run, lambda: run.status(step).state == "finished")  # since it is let in


def test_a_quota_that_is_used_up_is_named(kubeflow: Kubeflow, tmp_path: Path) -> None:
    namespace, name = kubeflow.cluster.options.namespace, f"moco-test-{secrets.token_hex(3)}"
    hard = {"requests.nvidia.com/gpu": "0"}
    kubeflow.admin.core.create_namespaced_resource_quota(
        namespace, {"metadata": {"name": name}, "spec": {"hard": hard}}
    )
    try:
        run = kubeflow.submit(tmp_path, {"make": Does(gpus=1)})
        kubeflow.wait(run, lambda: "exceeded quota" in run.status("make").reason)
    finally:
        kubeflow.admin.core.delete_namespaced_resource_quota(name, namespace)
    Server(kubeflow.cluster).terminate(ClusterRun.of(run))

    assert run.status("make").reason.startswith(f"its pod is refused: exceeded quota: {name}")


def test_a_cached_step_is_reused(kubeflow: Kubeflow, tmp_path: Path) -> None:
    name = f"moco-test-{secrets.token_hex(4)}"
    steps = {"make": Does(cache=True), "use": Does(cache=True, after="make")}
    first = kubeflow.submit(tmp_path, steps, name)
    kubeflow.end(first)
    second = kubeflow.submit(tmp_path, steps, name)
    kubeflow.end(second)

    assert states(first) == {"make": "finished", "use": "finished"}
    assert states(second) == {"make": "reused", "use": "reused"}
    assert second.status("make").reason == "from Kubeflow's cache"
    assert second.state == "finished"

    forget(second)
    with without_version_1(kubeflow) as poorer:
        refresh(second, poorer)
    assert states(second) == {"make": "reused", "use": "reused"}


def test_a_retry_of_the_platform_is_followed(kubeflow: Kubeflow, runs: dict[str, Run]) -> None:
    run = runs["hungry"]
    kubeflow.end(run)
    before = run.status("eat")

    retry(run, kubeflow.cluster)
    assert run.state == "running"
    kubeflow.wait(run, lambda: run.status("eat").state in ("waiting", "running"))
    kubeflow.end(run)

    again = run.status("eat")
    assert again.state == "failed" and before.ended and again.ended
    assert again.ended > before.ended


def test_a_server_without_version_1_tells_the_states(
    kubeflow: Kubeflow, runs: dict[str, Run]
) -> None:
    run = runs["broken"]
    kubeflow.end(run)
    known = states(run)
    forget(run)

    with without_version_1(kubeflow) as poorer:
        refresh(run, poorer)

    assert states(run) == known
    assert run.status("break_it").exit_code == ExitCode.BAD_DATA


@pytest.mark.usefixtures("moco")
def test_when_the_pods_have_gone_the_store_has_the_logs(
    kubeflow: Kubeflow, runs: dict[str, Run], capsys: Capture
) -> None:
    run = runs["broken"]
    kubeflow.end(run)
    kubeflow.remove_pods(run)
    forget(run)

    refresh(run, kubeflow.cluster)
    assert "image 7.jpg is truncated; remove it" in run.status("break_it").reason
    assert run.status("break_it").exit_code == ExitCode.BAD_DATA

    assert main(["logs", run.id]) == 0
    shown = capsys.readouterr()
    assert "make_it  | hello from make_it" in shown.out
    assert "break_it | error image 7.jpg is truncated; remove it exit_code=65" in shown.out
    assert "use_it has said nothing: it is skipped: break_it failed" in shown.err


@pytest.mark.usefixtures("moco")
def test_status_and_its_exit_code(
    kubeflow: Kubeflow, runs: dict[str, Run], capsys: Capture
) -> None:
    run = runs["broken"]

    assert main(["status", run.id, "--watch"]) == ExitCode.BAD_DATA
    shown = capsys.readouterr().out
    assert "✗ break_it  failed with exit code 65" in shown
    assert "    error image 7.jpg is truncated; remove it exit_code=65" in shown
    assert "- use_it    skipped: break_it failed" in shown

    assert main(["status", run.id]) == 0
    shown = capsys.readouterr().out
    assert f"on the cluster: run {ClusterRun.of(run).run} in namespace" in shown
    assert "/#/runs/details/" in shown
    assert re.search(r"✗ +break_it +failed .* exit code 65", shown)

    assert main(["status"]) == 0
    shown = capsys.readouterr().out
    assert re.search(
        rf"^{run.id} +digits +failed +2/4 .* {kubeflow.cluster.options.namespace}$", shown, re.M
    )


@pytest.mark.usefixtures("moco")
def test_logs_are_followed_to_the_end_of_a_run(
    kubeflow: Kubeflow, runs: dict[str, Run], capsys: Capture
) -> None:
    run = kubeflow.submit(
        runs["broken"].folder.parent, {"make": Does(TICKS), "use": Does(after="make")}
    )

    assert main(["logs", run.id, "--follow"]) == 0

    lines = capsys.readouterr().out.splitlines()
    ticks = [line for line in lines if line.startswith("make | progress")]
    assert [int(re.findall(r"done=(\d+)", line)[0]) for line in ticks] == list(range(25))
    assert lines[-1] == "use  | hello from use"
    assert run.state == "finished"


@pytest.mark.usefixtures("moco")
def test_a_run_that_the_server_does_not_know_keeps_its_last_status(
    kubeflow: Kubeflow, runs: dict[str, Run], capsys: Capture
) -> None:
    run = runs["broken"]
    kubeflow.end(run)
    lost = Run(run.folder.parent / "lost")
    lost.folder.mkdir()
    for file in ("plan.json", "run.json"):
        (lost.folder / file).write_bytes((run.folder / file).read_bytes())
    nobody = {**lost.record.place, "run": "00000000-0000-0000-0000-000000000000"}
    lost.write_record(
        lost.record.model_copy(update={"id": "lost", "place": nobody, "state": "running"})
    )

    with pytest.raises(ClusterError, match="does not know run 00000000"):
        refresh(lost, kubeflow.cluster)
    assert main(["status", "lost"]) == 0
    shown = capsys.readouterr()
    assert re.search(r"last heard of at 20\S+ \S+: .*does not know run 00000000", shown.err)
    assert "lost (tiny, digits scale): running" in shown.out
    assert main(["status", "lost", "--watch"]) == ExitCode.LOST_CLUSTER


@pytest.mark.usefixtures("moco")
def test_a_server_that_is_away_is_not_waited_for(
    kubeflow: Kubeflow, runs: dict[str, Run], capsys: Capture
) -> None:
    run = runs["broken"]
    kubeflow.end(run)
    away = ["--cluster", "server=http://127.0.0.1:9"]

    assert main(["status", run.id, *away]) == 0
    shown = capsys.readouterr()
    assert "http://127.0.0.1:9 does not answer" in shown.err
    assert f"{run.id} (tiny, digits scale): failed" in shown.out

    run.write_record(run.record.model_copy(update={"state": "running"}))
    assert main(["status", *away]) == 0
    assert f"{run.id} was last heard of at" in capsys.readouterr().err
    refresh(run, kubeflow.cluster)
    assert run.state == "failed"


@contextmanager
def refused(kubeflow: Kubeflow, step: str) -> Iterator[None]:
    """Keep the pods of a step out of the cluster."""
    from kubernetes import client

    policies = client.AdmissionregistrationV1Api(kubeflow.admin.api)
    name = f"moco-test-{step.replace('_', '-')}"
    label = "moco-transfer/stage"
    pods = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["pods"],
    }
    mine = (
        f"has(object.metadata.labels) && '{label}' in object.metadata.labels "
        f"&& object.metadata.labels['{label}'] == '{step}'"
    )
    policies.create_validating_admission_policy(
        {
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [pods]},
                "matchConditions": [{"name": "mine", "expression": mine}],
                "validations": [{"expression": "false", "message": "this pod is not wanted here"}],
            },
        }
    )
    policies.create_validating_admission_policy_binding(
        {"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}}
    )
    try:
        yield
    finally:
        policies.delete_validating_admission_policy_binding(name)
        policies.delete_validating_admission_policy(name)


@contextmanager
def without_version_1(kubeflow: Kubeflow) -> Iterator[Cluster]:
    """Reach the server as if it had only the newer version of its API."""
    behind = kubeflow.cluster.options.server

    class Poorer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/apis/v1beta1/"):
                self.send_error(404)
                return
            with urllib.request.urlopen(f"{behind}{self.path}", timeout=60) as answer:
                body = answer.read()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Poorer) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield Cluster(kubeflow.cluster.options.model_copy(update={"server": url}))
        finally:
            server.shutdown()
