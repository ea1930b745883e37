"""Streams the log of a TrainJob's pod while there is one: it goes with the pod."""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

from pipelines.cluster.logstream import AGAIN, follow_lines
from pipelines.cluster.trainjob.manifest import JOB

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
        self._place = (namespace, pod)
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
        for moment, words in follow_lines(self._core, *self._place, JOB, self._last):
            self._last = moment
            self.tail.append(words)
            if self._say:
                self._say(words)
