"""A small HTTP proxy on loopback that spoils chosen requests, as a bad network would."""

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import BinaryIO
from urllib.parse import SplitResult, urlsplit

_PATIENCE = 20  # seconds until an idle connection is closed, so that nothing outlives a test


class Fault(Enum):
    RESET = auto()  # the connection breaks before the request is passed on
    BUSY = auto()  # 503 SlowDown
    TRUNCATED = auto()  # half of the answer's body, then the end
    LOST_ANSWER = auto()  # the request is carried out, the answer never comes


_BUSY = (
    b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>SlowDown</Code>"
    b"<Message>Please reduce your request rate</Message></Error>"
)


@dataclass
class Proxy:
    endpoint: str
    faults: list[tuple[str, Fault]]  # each spoils the next request with that method
    seen: list[str] = field(default_factory=list)  # methods
    sent: int = 0  # bytes of answers' bodies
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault_for(self, method: str) -> Fault | None:
        with self.lock:
            self.seen.append(method)
            for index, (spoilt, fault) in enumerate(self.faults):
                if spoilt == method:
                    del self.faults[index]
                    return fault
        return None


@contextlib.contextmanager
def proxy(endpoint: str, *faults: tuple[str, Fault]) -> Iterator[Proxy]:
    """Serve at `.endpoint` what the server at `endpoint` answers, but for the faults."""
    target = urlsplit(endpoint)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    proxied = Proxy(f"http://127.0.0.1:{port}", list(faults))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                client.settimeout(_PATIENCE)
                threading.Thread(target=_serve, args=(client, target, proxied), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield proxied
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _serve(client: socket.socket, target: SplitResult, proxied: Proxy) -> None:
    with contextlib.suppress(OSError), client:
        server = socket.create_connection((target.hostname, target.port), timeout=_PATIENCE)
        with server, client.makefile("rb") as requests, server.makefile("rb") as answers:
            while head := _head(requests):
                method = head.split(b" ", 1)[0].decode()
                body = _body(requests, head)
                fault = proxied.fault_for(method)
                if fault is Fault.RESET:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                if fault is Fault.BUSY:
                    client.sendall(_busy(method))
                    continue
                server.sendall(head + body)
                answer = _head(answers)
                has_body = method != "HEAD" and b" 204 " not in answer.split(b"\r\n", 1)[0]
                content = _body(answers, answer) if has_body else b""
                if fault is Fault.LOST_ANSWER:
                    return
                if fault is Fault.TRUNCATED:
                    content = content[: len(content) // 2]
                proxied.sent += len(content)
                client.sendall(answer + content)
                if fault is Fault.TRUNCATED:
                    return


def _busy(method: str) -> bytes:
    body = b"" if method == "HEAD" else _BUSY
    return (
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(_BUSY), body)
    )


def _head(stream: BinaryIO) -> bytes:
    lines = []
    for line in stream:
        lines.append(line)
        if line == b"\r\n":
            return b"".join(lines)
    return b""


def _body(stream: BinaryIO, head: bytes) -> bytes:
    if re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
        chunks = []
        while True:
            size = stream.readline()
            chunks.append(size + stream.read(int(size, 16) + 2))
            if int(size, 16) == 0:
                return b"".join(chunks)
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return stream.read(int(length.group(1))) if length else b""
