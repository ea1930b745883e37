"""Says what became of the steps of a submitted run, from all that is known of them."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from components.core.errors import ClusterError, ExitCode, MocoError, StoreError
from components.core.manifest import MANIFEST
from pipelines.backends.kubeflow.connection import Cluster
from pipelines.backends.kubeflow.names import task_name
from pipelines.backends.kubeflow.parameters import resource_parameter
from pipelines.backends.kubeflow.podlogs import (
    attempts,
    node_of,
    open_artifacts,
    pods_of_run,
    pods_of_step,
    read_pod_log,
)
from pipelines.backends.kubeflow.pods import (
    Object,
    exceeded_memory,
    exit_code,
    is_beginning,
    moment,
    name_of,
    state_of,
    waits_for_ever,
    why_failed,
    why_waiting,
)
from pipelines.backends.kubeflow.record import ClusterRun
from pipelines.backends.kubeflow.workflow import Task, place_of
from pipelines.runs.folder import Run
from pipelines.runs.logs import Event, show_event
from pipelines.runs.record import LOST, RunState, StepStatus
from pipelines.words import became, number

TAIL = 200  # lines of a log in which the reason of a failure is looked for
LAST_LINES = 12  # of a failed step, that are shown
_COMPLAINT = re.compile(r"[EF]\d{4} [\d:.]+ +\d+ \S+\.go:\d+\] ")
UNSETTLED = ("waiting", "running")  # states of a step that has yet to end
CACHED = "from Kubeflow's cache"
STOPPED = "the run was stopped"
NEVER = "the run ended before its turn"
IMAGE_WANTED = (
    "the run waits for it for ever: moco cancel {run}, and submit it again with "
    "--parameter image_NAME=REFERENCE"
)


@dataclass
class StatusReader:
    """Reads what became of the steps of a run from all that is known of them.

    Attributes:
        run: The run.
        place: Where it is executed.
        cluster: The cluster that it is on.
        state: Of the run as a whole, as its server says.
        stopped: When somebody stopped it, if that happened.
        before: What was known of its steps.
        tasks: What the platform says of them now, by name of the task.
        others: What is known of steps of other parts of the run.
    """

    run: Run
    place: ClusterRun
    cluster: Cluster
    state: RunState
    stopped: datetime | None
    before: Mapping[str, StepStatus]
    tasks: Mapping[str, Task]
    others: Mapping[str, StepStatus] = field(default_factory=dict)

    def statuses(self) -> dict[str, StepStatus]:
        """Say what became of every step, in the plan's order."""
        known = dict(self.others)
        for step, before in self.before.items():
            task = self.tasks.get(task_name(step), Task("waiting"))
            status = self._status(step, task, before, known)
            known[step] = self._counted(step, status, before) if status.attempt else status
        return {step: known[step] for step in self.before}

    def why(self, name: str, task: Task) -> str:
        """Say why a task failed that is no step."""
        return self._failed(name, task).reason

    def _counted(self, step: str, status: StepStatus, before: StepStatus) -> StepStatus:
        """Count the attempts: another pod is another one, though the workflow may not say so."""
        if status.state in UNSETTLED and before.state not in UNSETTLED:
            before = StepStatus()  # the platform's retry of a run counts anew, and so do its pods
        pod = self._pod(step)
        identity = str(pod["metadata"]["uid"]) if pod else before.pod
        attempt = max(status.attempt, before.attempt)
        if before.pod not in (None, identity) and attempt == before.attempt:
            attempt += 1
        reason = status.reason
        if status.state == "running" and attempt > status.attempt and not reason:
            # The node says it for a moment only, and not at all where a run is looked at seldom.
            told = before.reason.startswith("after attempt") and attempt == before.attempt
            reason = before.reason if told else f"after attempt {attempt - 1}: its pod was lost"
        return status.model_copy(update={"attempt": attempt, "pod": identity, "reason": reason})

    def _status(
        self, step: str, task: Task, before: StepStatus, known: Mapping[str, StepStatus]
    ) -> StepStatus:
        over = self.state != "running"
        if task.state in ("waiting", "skipped") or (over and task.state == "running"):
            return self._never_ended(step, task, known, over)
        if task.state == "running":
            return self._under_way(step, task)
        if task.ended and task.ended == before.ended and before.state != "running":
            return before  # it is known why, and pods and logs may have gone since
        if task.state == "failed":
            return self._failed(step, task)
        if task.state == "finished":
            return self._finished(step, task)
        return _status(task, reason=CACHED if task.state == "reused" else STOPPED)

    def _never_ended(
        self, step: str, task: Task, known: Mapping[str, StepStatus], over: bool
    ) -> StepStatus:
        """Say why a step waits, will never begin, or was left in the middle."""
        for name in self._upstream.get(step, ()):
            state = known[name].state if name in known else "finished"
            if state in LOST:
                return StepStatus(state="skipped", reason=became(name, state))
        if not over:
            return StepStatus()
        if self.state == "interrupted" or task.state == "running":
            return _status(task, state="interrupted", reason=STOPPED)
        return StepStatus(state="skipped", reason=self._why_never)

    def _under_way(self, step: str, task: Task) -> StepStatus:
        """Say what a step does that has been begun: it runs, or waits for something."""
        pod = self._pod(step)
        if pod is None:
            return StepStatus(reason=self._why_no_pod(step, task), attempt=task.attempts)
        attempt = max(task.attempts, 1)
        word, details = state_of(pod)
        if word == "waiting":
            return StepStatus(reason=self._why_waiting(pod), attempt=attempt)
        earlier = f"after attempt {attempt - 1}: {task.earlier}" if task.earlier else ""
        reason = (why_failed(pod) if word == "terminated" else "") or earlier
        started = moment(details["startedAt"])
        return StepStatus(state="running", reason=reason, attempt=attempt, started=started)

    def _why_no_pod(self, step: str, task: Task) -> str:
        """Say why a step that was begun has no pod: it was refused, or is being prepared."""
        if task.refusals > 1:
            return f"{task.message}; refused {number(task.refusals, 'time')} so far"
        driver = self._driver(step)
        if not task.message and driver and state_of(driver)[0] == "waiting":
            return self._why_waiting(driver)
        return task.message or self._unlisted or "it is being prepared"

    def _why_waiting(self, pod: Object) -> str:
        beginning = is_beginning(pod)
        events = self.cluster.events(self.place.namespace, name_of(pod)) if beginning else []
        words = why_waiting(pod, events)
        if waits_for_ever(pod):
            return f"{words}; {IMAGE_WANTED.format(run=self.run.id)}"
        return words

    def _finished(self, step: str, task: Task) -> StepStatus:
        """Take a step's word for its end, but not for its outputs: the platform does not look."""
        try:
            written = self._written(step)
            ports = self.run.plan.step(step).stage.outputs
        except MocoError:  # nobody can look: what reads the outputs verifies them
            return self._ended(step, task, exit_code=0)
        if not (task.attempts or written):  # the details of a run do not tell which tasks ran
            return _status(task, state="reused", reason=CACHED)
        missing = [n for n, port in ports.items() if port.kind != "HTML" and n not in written]
        if not missing:
            return self._ended(step, task, exit_code=0)
        reason = f"it ended well, but {' and '.join(missing)} did not reach the store whole"
        again = f"moco rerun {self.run.id} {step} runs it again"
        return self._ended(
            step, task, state="failed", exit_code=ExitCode.FAILURE, reason=f"{reason}; {again}"
        )

    def _written(self, step: str) -> set[str]:
        """Return the outputs of a step that are whole in the store, and the log if it is there.

        Raises:
            MocoError: if the store cannot be looked into.
        """
        store = open_artifacts(self.cluster, self.place)
        keys = [entry.key.split("/") for entry in store.list(task_name(step))]
        manifests = {key[2] for key in keys if len(key) == 4 and key[3] == MANIFEST}
        return manifests | {key[2] for key in keys if len(key) == 3}

    def _failed(self, step: str, task: Task) -> StepStatus:
        """Give a failure its reason: what the step said last, and what the platform knows."""
        if self.stopped and task.ended and task.ended >= self.stopped:
            return self._ended(step, task, state="interrupted", reason=STOPPED)
        pod = self._pod(step)
        said = self._said(step, pod)
        code = next((e["exit_code"] for e in reversed(said) if "exit_code" in e), None)
        if code is None and pod:
            code = exit_code(pod)
        words = (why_failed(pod) if pod else "") or task.message
        if pod and exceeded_memory(pod):
            words += f"; submit it with more: {self._memory_parameter(step)}"
        lines = "\n".join(show_event(e) for e in said if e["event"] != "progress").splitlines()
        return self._ended(
            step,
            task,
            exit_code=code or ExitCode.FAILURE,
            reason="\n".join(part for part in (*lines[-LAST_LINES:], words) if part),
        )

    def _ended(self, step: str, task: Task, **known: Any) -> StepStatus:
        """Write the status of a step that ran; its pod knows best since when."""
        pod = self._pod(step)
        began = moment(state_of(pod)[1].get("startedAt")) if pod else None
        return _status(task, started=began or task.started, **known)

    def _memory_parameter(self, step: str) -> str:
        with suppress(MocoError):
            stage = self.run.plan.step(step).stage
            return f"--parameter {resource_parameter('memory', stage)}=SIZE"
        return "--parameter memory_STAGE=SIZE"

    def _said(self, step: str, pod: Object | None) -> Sequence[Event]:
        """Read the end of what the last attempt said, or its driver if there was no attempt."""
        with suppress(ClusterError, StoreError):
            if pod:
                return read_pod_log(self.cluster, pod, TAIL)
            if logs := attempts(self.place, step, self.cluster, ()):
                return logs[-1].read()[-TAIL:]
        driver = self._driver(step)
        return self._complaints(driver) if driver else []

    def _complaints(self, driver: Object) -> list[Event]:
        """Read why a driver failed; the rest of what it says is about its own work."""
        if not exit_code(driver):
            return []
        with suppress(ClusterError):
            said = read_pod_log(self.cluster, driver, TAIL)
            return [event for event in said if _COMPLAINT.match(str(event["event"]))]
        return []

    @cached_property
    def _why_never(self) -> str:
        """Say why a run came to its end without coming to all of its steps."""
        for pod in self._pods:
            if node_of(pod).endswith(".root-driver(0)") and (said := self._complaints(pod)):
                return str(said[-1]["event"])
        return NEVER

    def _pod(self, step: str) -> Object | None:
        """Return the last pod that ran a step's own command, if it still exists."""
        mine = pods_of_step(self._pods, step)
        return mine[-1] if mine else None

    def _driver(self, step: str) -> Object | None:
        """Return the pod that prepares a step: its name stands in an annotation only."""
        task = f"{task_name(step)}-driver"
        drivers = [pod for pod in self._pods if place_of(node_of(pod)) == (task, "")]
        return drivers[-1] if drivers else None

    @cached_property
    def _pods(self) -> list[Object]:
        try:
            return pods_of_run(self.cluster, self.place)
        except ClusterError as error:
            self._unlisted = str(error)
            return []

    _unlisted: str = ""
    """Why the pods are not known, if they are not."""

    @cached_property
    def _upstream(self) -> dict[str, list[str]]:
        return upstream_of(self.run)


def upstream_of(run: Run) -> dict[str, list[str]]:
    """Name the steps that each step of a run reads from; of another version's plan none."""
    with suppress(MocoError):
        return {step.name: sorted(step.upstream) for step in run.plan}
    return {}


def _status(task: Task, **known: Any) -> StepStatus:
    """Write what is known of a task as a step's status."""
    return StepStatus(
        **{
            "state": task.state,
            "attempt": task.attempts,
            "started": task.started,
            "ended": task.ended,
            **known,
        }
    )
