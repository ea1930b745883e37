"""What Kubernetes says of a step's pods, put into words for people.

Pods and events are as the API writes them in JSON.
"""

import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

Object = Mapping[str, Any]

RUN_LABEL = "pipeline/runid"  # of the pods of a run, and of its workflow
MAIN = "main"  # the container that runs the step's own command
KILLED = 128 + signal.SIGKILL

_PULL = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
    | {"ImageInspectError", "RegistryUnavailable"}
)
_BEGINNING = frozenset({"ContainerCreating", "PodInitializing"})
_FAILED_EVENTS = frozenset(
    {"FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreatePodSandBox"}
)


def name_of(pod: Object) -> str:
    """Return a pod's name."""
    return str(pod["metadata"]["name"])


def created(pod: Object) -> str:
    """Return when a pod was made, as text that sorts."""
    return str(pod["metadata"]["creationTimestamp"])


def state_of(pod: Object, container: str = MAIN) -> tuple[str, Object]:
    """Return what a container does: `waiting`, `running` or `terminated`, with its details."""
    for status in _statuses(pod):
        if status["name"] == container:
            for word, details in (status.get("state") or {}).items():
                return word, details or {}
    return "waiting", {}


def moment(text: str | None) -> datetime | None:
    """Read a time of the API; the epoch, which it writes for `never`, is none."""
    if not text or text.startswith("1970-"):
        return None
    return datetime.fromisoformat(text)


def why_waiting(pod: Object, events: Iterable[Object] = ()) -> str:
    """Say why a pod does not run yet.

    Args:
        pod: The pod.
        events: Of that pod, the oldest first; needed while its containers are being made.
    """
    for status in _statuses(pod):
        waiting = (status.get("state") or {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in _PULL:
            image = _container(pod, status["name"])["image"]
            return f"the image {image} cannot be pulled: {_pull_words(message, image) or reason}"
        if reason and reason not in _BEGINNING:
            return f"its container cannot be made: {message or reason}"
    for condition in pod["status"].get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return _why_unscheduled(pod, condition)
    return _why_beginning(events)


def waits_for_ever(pod: Object) -> bool:
    """Say whether a pod waits for an image that nobody may ever provide: no limit ends that."""
    return any(
        ((status.get("state") or {}).get("waiting") or {}).get("reason") in _PULL
        for status in _statuses(pod)
    )


def is_beginning(pod: Object) -> bool:
    """Say whether a pod has a node and its containers are being made: only events tell more."""
    conditions = pod["status"].get("conditions") or ()
    scheduled = {condition["type"]: condition["status"] for condition in conditions}.get(
        "PodScheduled"
    ) == "True"
    return scheduled and pod["status"].get("phase") == "Pending"


def why_failed(pod: Object) -> str:
    """Say what the platform knows of a failure; nothing if the step's own words say it all."""
    status = pod["status"]
    if status.get("reason"):  # the node put an end to the pod as a whole
        return f"the pod was ended ({status['reason']}): {status.get('message', '').strip()}"
    for container in _statuses(pod):
        ended = (container.get("state") or {}).get("terminated") or {}
        if ended.get("reason") == "OOMKilled":
            limit = memory_limit(pod, container["name"])
            return f"the memory limit of {limit} was exceeded" if limit else "out of memory"
        code = ended.get("exitCode", 0)
        if code and ended.get("message"):
            return f"container {container['name']}: {str(ended['message']).strip()}"
        if code and container["name"] not in (MAIN, "wait"):
            return f"container {container['name']} failed with exit code {code}"
    return describe_code(exit_code(pod))


def exceeded_memory(pod: Object) -> bool:
    """Say whether the main container took more memory than it may."""
    return state_of(pod)[1].get("reason") == "OOMKilled"


def exit_code(pod: Object) -> int | None:
    """Return the exit code of the main container, if it has ended."""
    word, details = state_of(pod)
    return details.get("exitCode") if word == "terminated" else None


def describe_code(code: int | None) -> str:
    """Name the signal behind an exit code; nothing for one that a program chose itself."""
    if code is None or code <= 128:
        return ""
    try:
        name = signal.Signals(code - 128).name
    except ValueError:
        return ""
    return f"ended by {name}" + ("; out of memory?" if code == KILLED else "")


def memory_limit(pod: Object, container: str = MAIN) -> str | None:
    """Return the memory that a container may take, as Kubernetes writes it: `4Gi`."""
    limits = (_container(pod, container).get("resources") or {}).get("limits") or {}
    return limits.get("memory")


def _statuses(pod: Object) -> Iterator[Object]:
    status = pod["status"]
    for kind in ("initContainerStatuses", "containerStatuses"):
        yield from status.get(kind) or ()


def _container(pod: Object, name: str) -> Object:
    spec = pod["spec"]
    for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
        if container["name"] == name:
            named: Object = container
            return named
    return {}


def _why_unscheduled(pod: Object, condition: Object) -> str:
    if condition.get("reason") == "SchedulingGated":
        gates = ", ".join(gate["name"] for gate in pod["spec"].get("schedulingGates") or ())
        queue = " (Kueue: its queue has no room yet)" if "kueue" in gates else ""
        return f"held back by {gates or 'a scheduling gate'}{queue}"
    # What follows is about preempting other pods, which is of no help to anybody.
    words = str(condition.get("message", "")).partition(" no new claims")[0]
    return f"no node can take it: {words.partition(' preemption:')[0].rstrip(' .')}"


def _why_beginning(events: Iterable[Object]) -> str:
    last = ""
    for event in events:
        reason, message = event.get("reason"), str(event.get("message", "")).strip()
        if reason in _FAILED_EVENTS:
            last = f"its volumes or its network are not ready: {message}"
        elif reason == "Pulling":
            last = f"{message[:1].lower()}{message[1:]}"
        elif reason in ("Pulled", "Created", "Started"):
            last = ""
    return last or "its container is being started"


def _pull_words(message: str, image: str) -> str:
    """Shorten what a container runtime says to the end of its chain of causes."""
    words = message.partition("ErrImagePull: ")[2] or message
    for phrase in (f'failed to resolve reference "{image}": ', f'failed to pull image "{image}": '):
        words = words.partition(phrase)[2] or words
    return words.strip()


def sorted_events(events: Sequence[Object]) -> list[Object]:
    """Sort events by when they were last seen."""
    return sorted(
        events, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime"))
    )
