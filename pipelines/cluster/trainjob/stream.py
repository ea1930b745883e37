"""Streams the log of a TrainJob's pod while there is one: it goes with the pod."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import Any

from pipelines.cluster.trainjob.manifest import JOB

AGAIN = 1.0  # seconds until a stream that broke off is opened again
SILENCE = (5, 300)  # seconds to connect, and without a word until a stream counts as broken
SKEW = 60  # seconds by which a node's clock may be behind
LAST_LINES = 30


class LogStream(threading.Thread):
    """Passes a pod's lines on until the pod has ended.

    Attributes:
        tail: The last lines.
    """

    def __init__(
        self, core: Any, namespace: str, pod: str, say: Callable[[str], None] | None
    ) -> None:
        """Begin at once.

        Args:
            core: The Kubernetes API.
            namespace: Of the pod.
            pod: Its name; its container has started.
            say: What lines are passed on to, if they are.
        """
        super().__init__(daemon=True, name=f"log of {pod}")
        self.tail: deque[str] = deque(maxlen=LAST_LINES)
        self._core = core
        self._place = (pod, namespace)
        self._say = say
        self._ended = threading.Event()
        self._last: datetime | None = None
        self.start()

    def end(self) -> None:
        """Read what there is, and no more: the container has ended, or the pod has gone."""
        self._ended.set()

    def run(self) -> None:
        """Read until the end; a connection that broke off is opened again."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        while True:
            last_time = self._ended.is_set()
            with suppress(HTTPError):
                try:
                    self._read()
                except ApiException as error:
                    if error.status == 404:
                        return
            if last_time:
                return
            time.sleep(AGAIN)

    def _read(self) -> None:
        options = {}
        if self._last:
            behind = (datetime.now(UTC) - self._last).total_seconds()
            options["since_seconds"] = int(behind) + SKEW
        answer = self._core.read_namespaced_pod_log(
            *self._place,
            container=JOB,
            follow=True,
            timestamps=True,
            _request_timeout=SILENCE,
            _preload_content=False,
            **options,
        )
        with closing(answer):
            for line in _whole_lines(answer.stream(decode_content=True)):
                stamp, _, words = line.partition(" ")
                moment = datetime.fromisoformat(stamp)
                if self._last is None or moment > self._last:
                    self._last = moment
                    self.tail.append(words)
                    if self._say:
                        self._say(words)


def _whole_lines(chunks: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace")
    if rest:
        yield rest.decode("utf-8", "replace")
