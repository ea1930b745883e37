"""What is read of a run's workflow: of those that a real server made of tiny pipelines."""

import base64
import copy
import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines.backends.kubeflow.workflow import attempt_of, place_of, tasks_of_workflow, telling

RECORDED = Path(__file__).parent / "recorded" / "workflows.json"


@pytest.fixture(scope="module")
def workflows() -> dict[str, Any]:
    """Give workflows by what became of them, less what is not looked at."""
    found: dict[str, Any] = json.loads(RECORDED.read_text())
    return found


def test_steps_that_do_not_depend_on_a_failed_one_go_on(workflows: dict[str, Any]) -> None:
    tasks = tasks_of_workflow(workflows["failed"])

    assert {name: task.state for name, task in tasks.items()} == {
        "ok-one": "finished",
        "takes": "finished",
        "fails": "failed",
        "after-fails": "skipped",
        "slow": "finished",
        "after-slow": "finished",
    }
    assert tasks["fails"].message == ""  # its exit code is the launcher's, not its own
    assert tasks["fails"].ended == datetime(2026, 11, 23, 16, 30, 49, tzinfo=UTC)


def test_a_step_whose_pod_was_skipped_is_from_the_cache(workflows: dict[str, Any]) -> None:
    states = {task.state for task in tasks_of_workflow(workflows["cached"]).values()}

    assert states == {"reused"}


def test_a_pod_that_was_deleted_is_an_attempt(workflows: dict[str, Any]) -> None:
    task = tasks_of_workflow(workflows["deleted"])["make"]

    assert (task.state, task.attempts, task.earlier) == ("finished", 2, "pod deleted")


@pytest.mark.parametrize(
    ("phase", "state", "message"), [("Running", "running", ""), ("Succeeded", "finished", "")]
)
def test_a_pod_that_was_made_anew_under_its_node_is_an_attempt(
    workflows: dict[str, Any], phase: str, state: str, message: str
) -> None:
    """As Argo 4.0.5 does, with no second child of the retry."""
    workflow = copy.deepcopy(workflows["deleted"])
    nodes = workflow["status"]["nodes"]
    workflow["status"]["phase"] = phase
    second = next(key for key, node in nodes.items() if ".make(0).executor(1)" in node["name"])
    first = next(node for node in nodes.values() if ".make(0).executor(0)" in node["name"])
    del nodes[second]
    first |= {"phase": phase, "message": "pod deleted"}
    for node in nodes.values():
        if place_of(node["name"]) == ("make", ""):
            node["phase"] = phase

    task = tasks_of_workflow(workflow)["make"]

    assert (task.state, task.attempts, task.message) == (state, 2, message)
    assert task.earlier == "pod deleted"


def test_the_platform_tells_that_memory_was_exceeded(workflows: dict[str, Any]) -> None:
    task = tasks_of_workflow(workflows["memory"])["make"]

    assert (task.state, task.message) == ("failed", "the memory limit was exceeded")


def test_a_refused_pod_is_no_attempt_and_no_end(workflows: dict[str, Any]) -> None:
    quota = tasks_of_workflow(workflows["quota"])["make"]
    refused = tasks_of_workflow(workflows["refused"])["refuse-lk"]

    assert (quota.state, quota.attempts) == ("running", 0)
    assert quota.message.startswith("its pod is refused: exceeded quota: ")
    assert (refused.state, refused.attempts, refused.refusals) == ("running", 0, 9)
    assert refused.message.endswith("denied request: this pod is not wanted here")


def test_refused_to_the_end_a_step_has_failed(workflows: dict[str, Any]) -> None:
    ended = {"status": {**workflows["refused"]["status"], "phase": "Error"}}

    assert tasks_of_workflow(ended)["refuse-lk"].state == "failed"


def test_a_step_that_could_not_be_prepared_has_failed(workflows: dict[str, Any]) -> None:
    states = {name: task.state for name, task in tasks_of_workflow(workflows["unprepared"]).items()}

    assert states == {"make": "failed", "use": "skipped"}


def test_the_nodes_of_a_large_workflow_are_unpacked(workflows: dict[str, Any]) -> None:
    status = workflows["failed"]["status"]
    packed = base64.b64encode(gzip.compress(json.dumps(status["nodes"]).encode())).decode()
    large = {"status": {"phase": status["phase"], "compressedNodes": packed}}

    assert tasks_of_workflow(large) == tasks_of_workflow(workflows["failed"])


def test_a_workflow_that_has_not_begun_has_no_tasks() -> None:
    assert tasks_of_workflow({"status": {}}) == {}


@pytest.mark.parametrize(
    ("node", "place", "attempt"),
    [
        ("wf-1(0).root(0).make-it(0).executor(2)", ("make-it", "executor"), 2),
        ("wf-1(0).root(1).make-it", ("make-it", ""), 0),
        ("wf-1(0).root-driver(0)", ("", ""), 0),
        ("wf-1", ("", ""), 0),
        ("", ("", ""), 0),
    ],
)
def test_a_node_says_where_it_stands(node: str, place: tuple[str, str], attempt: int) -> None:
    assert place_of(node) == place
    assert attempt_of(node) == attempt


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("main: Error (exit code 1)", ""),
        ("Error (exit code 1)", ""),
        ("OOMKilled (exit code 137)", "the memory limit was exceeded"),
        ("pod deleted", "pod deleted"),
        ('pods "a-b" is forbidden: exceeded quota: q', "its pod is refused: exceeded quota: q"),
    ],
)
def test_what_the_platform_says_is_shortened(message: str, words: str) -> None:
    assert telling(message) == words
