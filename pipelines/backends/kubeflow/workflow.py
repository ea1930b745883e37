"""What the workflow behind a run says of its steps.

Kubeflow Pipelines executes a run as a workflow of Argo. Its nodes are named after where
they stand: `WORKFLOW(0).root(0).TASK(0).executor(1)`, a number for each attempt.
"""

import base64
import json
import re
import zlib
from dataclasses import dataclass
from datetime import datetime

from pipelines.backends.kubeflow.pods import Object, moment
from pipelines.runs.record import StepState

NODE = "workflows.argoproj.io/node-name"  # annotation of a pod
_ATTEMPT = re.compile(r"\((\d+)\)$")
_STATES: dict[str, StepState] = {
    "Succeeded": "finished",
    "Failed": "failed",
    "Error": "failed",
    "Skipped": "skipped",
    "Omitted": "skipped",
    "Running": "running",
    "Pending": "running",
}
_REFUSED = re.compile(r'pods "[^"]*" is forbidden: ')
_LOST = re.compile(r"^pod deleted$|\bpod was (?:deleted|evicted)\b", re.IGNORECASE)
_CODES = re.compile(r"^(?:main: )?(\w+) \(exit code \d+\)$")


@dataclass(frozen=True)
class Task:
    """What is said of one step."""

    state: StepState
    """`running` from its preparation on, whether or not a pod of it runs, until it is settled."""
    message: str = ""
    earlier: str = ""
    """How the attempt before the last one ended."""
    attempts: int = 0
    """Pods of it that came to a node."""
    refusals: int = 0
    """Pods of it that the cluster did not let in."""
    started: datetime | None = None
    ended: datetime | None = None


def tasks_of_workflow(workflow: Object) -> dict[str, Task]:
    """Read the steps' tasks, by the name of the task, from a workflow's nodes."""
    going = workflow["status"].get("phase") in (None, "", "Pending", "Running")
    nodes: dict[tuple[str, str], list[Object]] = {}
    for node in nodes_of(workflow):
        nodes.setdefault(place_of(node["name"]), []).append(node)
    tasks = {}
    for name in {task.removesuffix("-driver") for task, _ in nodes if task}:
        prepared = _preparation(nodes.get((f"{name}-driver", ""), []), going)
        whole = nodes.get((name, ""), [])
        if whole and prepared.state != "failed":
            tasks[name] = _task(whole, nodes.get((name, "executor"), []), going)
        else:
            tasks[name] = prepared
    return tasks


def nodes_of(workflow: Object) -> list[Object]:
    """Return the nodes; those of a large workflow are compressed."""
    status = workflow["status"]
    if packed := status.get("compressedNodes"):
        text = zlib.decompress(base64.b64decode(packed), wbits=zlib.MAX_WBITS | 16)
        return list(json.loads(text).values())
    return list((status.get("nodes") or {}).values())


def place_of(node: str) -> tuple[str, str]:
    """Return the task that a node belongs to, and the part of it; both may be empty."""
    parts = [_ATTEMPT.sub("", part) for part in node.split(".")]
    return (parts[2] if len(parts) > 2 else "", ".".join(parts[3:]))


def attempt_of(node: str) -> int:
    """Return the number of the attempt that a node is, from 0."""
    number = _ATTEMPT.search(node)
    return int(number[1]) if number else 0


def telling(message: str) -> str:
    """Shorten the platform's words; the exit codes in them are those of its own launcher."""
    if refused := _REFUSED.match(message):
        return f"its pod is refused: {message[refused.end() :]}"
    if code := _CODES.match(message):
        return {"Error": "", "OOMKilled": "the memory limit was exceeded"}.get(code[1], code[1])
    return message


def _task(whole: list[Object], executors: list[Object], going: bool) -> Task:
    """Read a task from the nodes of it as a whole, and those of its pods."""
    newest = max(whole, key=lambda node: (node["startedAt"], -len(node["name"])))
    pods = sorted(
        (node for node in executors if node["type"] == "Pod"), key=lambda node: node["startedAt"]
    )
    messages = [telling(node.get("message") or "") for node in pods]
    # Argo 4.0.5 makes a lost pod anew under its node, which keeps the word of it.
    remade = [
        _LOST.search(words) is not None and node.get("phase") not in ("Failed", "Error")
        for node, words in zip(pods, messages, strict=True)
    ]
    ends: list[str] = []
    for words, again in zip(messages, remade, strict=True):
        ends += [words, ""] if again else [words]
    state = _state(newest, going)
    if state == "finished" and any(node["type"] == "Skipped" for node in executors):
        state = "reused"
    last = pods[-1] if pods else newest
    return Task(
        state,
        ends[-1] if pods else telling(newest.get("message") or ""),
        earlier=ends[-2] if len(ends) > 1 else "",
        attempts=sum(bool(node.get("hostNodeName")) for node in pods) + sum(remade),
        refusals=sum(words.startswith("its pod is refused") for words in messages),
        started=moment(last.get("startedAt")),
        ended=moment(last.get("finishedAt")),
    )


def _preparation(nodes: list[Object], going: bool) -> Task:
    """Read a task from the nodes of its driver, which comes before all others."""
    if not nodes:
        return Task("running")
    last = max(nodes, key=lambda node: (node["startedAt"], len(node["name"])))
    state = _state(last, going)
    if state in ("finished", "running"):  # its pod comes next
        return Task("running")
    return Task(state, telling(last.get("message") or ""), ended=moment(last.get("finishedAt")))


def _state(node: Object, going: bool) -> StepState:
    """Read a node's state; errors of the platform's own are tried again, at every level."""
    phase = node.get("phase") or "Pending"
    return "running" if phase == "Error" and going else _STATES[phase]
