"""Follows what one container says, over connections that break."""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import Any

from pipelines.backends.kubeflow.connection import TIMEOUT
from pipelines.backends.kubeflow.pods import state_of

AGAIN = 1.0  # seconds until a stream that broke off is opened again
SILENCE = (5, 300)  # seconds to connect, and without a word until a stream counts as broken
SKEW = 60  # seconds by which a node's clock may be behind

LAST_LINES = 30

Line = tuple[datetime, str]


class PodLog(threading.Thread):
    """Passes the lines of a pod's container on until it has ended or the pod has gone.

    Attributes:
        tail: The last lines.
    """

    def __init__(
        self,
        core: Any,
        namespace: str,
        pod: str,
        container: str,
        *,
        say: Callable[[str], None] | None,
        fail: Callable[[Exception], None] | None = None,
    ) -> None:
        """Begin at once.

        Args:
            core: The Kubernetes API.
            namespace: Of the pod.
            pod: Its name.
            container: The container, which has started.
            say: What lines are passed on to, if they are.
            fail: Gets what the API refuses, and ends it; without, that is tried again.
        """
        super().__init__(daemon=True, name=f"log of {pod}")
        self.tail: deque[str] = deque(maxlen=LAST_LINES)
        self._core, self._place = core, (namespace, pod, container)
        self._say, self._fail = say, fail
        self._ended = threading.Event()
        self._last: datetime | None = None
        self.start()

    def end(self) -> None:
        """Read what there is, and no more: the container has ended, or the pod has gone."""
        self._ended.set()

    def run(self) -> None:
        """Read until the end; a connection that broke off is opened again."""
        try:
            while not self._is_read():
                time.sleep(AGAIN)
        except Exception as error:
            if self._fail is None:
                raise
            self._fail(error)

    def _is_read(self) -> bool:
        """Read on, and say whether that was all."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        last_time, broken = self._ended.is_set(), True
        try:
            with suppress(HTTPError):
                for moment, words in follow_lines(self._core, *self._place, self._last):
                    self._last = moment
                    self.tail.append(words)
                    if self._say:
                        self._say(words)
                broken = False
            return last_time or (not broken and not self._goes_on())
        except ApiException as error:
            if error.status == 404:  # the pod has been deleted
                return True
            if self._fail:
                raise
            return last_time

    def _goes_on(self) -> bool:
        namespace, pod, container = self._place
        answer = self._core.read_namespaced_pod(
            pod, namespace, _request_timeout=TIMEOUT, _preload_content=False
        )
        return state_of(json.loads(answer.data), container)[0] == "running"


def follow_lines(
    core: Any, namespace: str, pod: str, container: str, last: datetime | None = None
) -> Iterator[Line]:
    """Yield a container's lines with their moments, as they come, until the connection ends.

    Args:
        core: The Kubernetes API.
        namespace: Of the pod.
        pod: Its name.
        container: Its container.
        last: Moment of the line after which to go on; the first by default.

    Raises:
        ApiException, HTTPError: as the client does.
    """
    options = {}
    if last:
        options["since_seconds"] = int((datetime.now(UTC) - last).total_seconds()) + SKEW
    answer = core.read_namespaced_pod_log(
        pod,
        namespace,
        container=container,
        follow=True,
        timestamps=True,
        _request_timeout=SILENCE,
        _preload_content=False,
        **options,
    )
    with closing(answer):
        for line in whole_lines(answer.stream(decode_content=True)):
            stamp, _, words = line.partition(" ")
            moment = datetime.fromisoformat(stamp)
            if last is None or moment > last:
                yield moment, words


def whole_lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Yield the lines of a stream, the last one too if it has no end."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace")
    if rest:
        yield rest.decode("utf-8", "replace")
