"""Asks how submitted runs go, and writes it down where runs of this machine keep it.

Kubeflow Pipelines tells in which state a run and its tasks are, and nothing of why. The reasons
are in its workflow, in the pods and their events, and in the steps' logs.
"""

from pipelines.backends.kubeflow.connection import Cluster
from pipelines.backends.kubeflow.podlogs import pods_of_run, pods_of_step, read_pod_log
from pipelines.backends.kubeflow.record import ClusterRun
from pipelines.backends.kubeflow.server import Server
from pipelines.backends.kubeflow.steps import StatusReader
from pipelines.backends.kubeflow.workflow import tasks_of_workflow
from pipelines.runs.folder import Run
from pipelines.runs.logs import Event
from pipelines.runs.record import DONE

PROGRESS_TAIL = 50  # lines of a log in which the newest progress is looked for


def refresh(run: Run, cluster: Cluster) -> None:
    """Ask how a submitted run goes, and write that into the run's folder.

    What was known before stays where nobody knows better any more.

    Args:
        run: The run.
        cluster: The cluster that it is on.

    Raises:
        ClusterError: if the server cannot be reached, refuses, or does not know the run.
    """
    place, server = ClusterRun.of(run), Server(cluster)
    known = server.run(place)
    workflow = server.workflow(place)
    tasks = {**known.tasks, **(tasks_of_workflow(workflow) if workflow else {})}
    before = run.statuses()
    reader = StatusReader(run, place, cluster, known.state, known.stopped, before, tasks)
    statuses = reader.statuses()
    for step, status in statuses.items():
        if status != before[step]:
            run.write_status(step, status)
    state = known.state
    if state == "finished" and not all(status.state in DONE for status in statuses.values()):
        state = "failed"  # an output that was never written is no error to the platform
    run.write_record(run.record.model_copy(update={"state": state, "ended": known.ended}))


def progress(run: Run, cluster: Cluster) -> list[tuple[str, Event]]:
    """Return the newest progress of the steps that run, and what they have just warned of.

    Raises:
        ClusterError: if the cluster cannot be reached or refuses.
    """
    running = [name for name, status in run.statuses().items() if status.state == "running"]
    pods = pods_of_run(cluster, ClusterRun.of(run)) if running else []
    told: list[tuple[str, Event]] = []
    for name in running:
        for pod in pods_of_step(pods, name)[-1:]:
            events = read_pod_log(cluster, pod, PROGRESS_TAIL)
            newest = [event for event in events if event["event"] == "progress"][-1:]
            warned = [event for event in events if event.get("level") == "warning"]
            told += [(name, event) for event in (*warned, *newest)]
    return told
