"""Follows the log of one container, over connections that break."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

AGAIN = 1.0  # seconds until a stream that broke off is opened again
SILENCE = (5, 300)  # seconds to connect, and without a word until a stream counts as broken
SKEW = 60  # seconds by which a node's clock may be behind

Line = tuple[datetime, str]


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
