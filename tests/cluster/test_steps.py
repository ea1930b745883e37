"""Attempts as they are counted from one look at a run to the next."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.backends.kubeflow.connection import Cluster
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.backends.kubeflow.record import ClusterRun
from pipelines.backends.kubeflow.steps import StatusReader
from pipelines.backends.kubeflow.workflow import NODE, Task
from pipelines.runs.folder import Run
from pipelines.runs.record import StepStatus

PLACE = ClusterRun(run="a1", pipeline="tiny", namespace="ours", server="", artifacts="s3://b/a1")
FIRST = StepStatus(state="running", attempt=1, pod="uid-1")
LOST = "after attempt 1: its pod was lost"


def look(tmp_path: Path, before: StepStatus, task: Task, pod: str | None) -> StepStatus:
    """Look at the one step of a run whose pod runs, or has none."""
    reader = StatusReader(
        Run(tmp_path),
        PLACE,
        Cluster(ClusterOptions()),
        "running",
        None,
        before={"make": before},
        tasks={"make": task},
    )
    running = {"name": "main", "state": {"running": {"startedAt": "2026-11-27T20:00:00Z"}}}
    listed: list[Any] = [
        {
            "metadata": {"uid": pod, "annotations": {NODE: "w(0).root(0).make(0).executor(0)"}},
            "spec": {"containers": [{"name": "main"}]},
            "status": {"phase": "Running", "containerStatuses": [running]},
        }
    ]
    vars(reader)["_pods"] = listed if pod else []  # as the cluster would list them
    return reader.statuses()["make"]


@pytest.mark.parametrize(
    ("before", "task", "pod", "attempt", "reason"),
    [
        (StepStatus(), Task("running", attempts=1), "uid-1", 1, ""),
        (FIRST, Task("running", attempts=1), "uid-1", 1, ""),
        (FIRST, Task("running", attempts=1), "uid-2", 2, LOST),
        # The node says it at once, or says it for a moment: it is counted once.
        (
            FIRST,
            Task("running", attempts=2, earlier="pod deleted"),
            "uid-2",
            2,
            "after attempt 1: pod deleted",
        ),
        (
            StepStatus(state="waiting", reason="it is pulled", attempt=2, pod="uid-2"),
            Task("running", attempts=1),
            "uid-2",
            2,
            LOST,
        ),
        (
            StepStatus(state="running", reason=LOST, attempt=2, pod="uid-2"),
            Task("running", attempts=1),
            "uid-2",
            2,
            LOST,
        ),
        # One that ended with a code of its own, and was tried again by the platform, was not lost.
        (FIRST, Task("running", attempts=2), "uid-2", 2, ""),
        (
            StepStatus(state="failed", reason="its last words", attempt=1, pod="uid-1"),
            Task("running", attempts=1),
            "uid-2",
            1,
            "",
        ),
    ],
)
def test_an_attempt_is_a_pod_and_its_loss_is_told(
    tmp_path: Path, before: StepStatus, task: Task, pod: str, attempt: int, reason: str
) -> None:
    status = look(tmp_path, before, task, pod)

    assert (status.state, status.attempt, status.reason) == ("running", attempt, reason)
    assert status.pod == pod
