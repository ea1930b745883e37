"""Store transfers against the bare `minio` client, on a real server.

`python -m tests.benchmarks.store [--megabytes 2048]` prints one JSON line a benchmark; a ratio is
the bare client's seconds divided by ours.
"""

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from components.core.store import Store, open_store
from tests.servers.minio import MinioServer, running_minio

FILES = 1000
FILE_BYTES = 64 << 10
ROUND_TRIP = 0.010  # seconds, as from a pod to an object store's first byte
REPEATS = 3


def run(megabytes: int = 512) -> list[dict[str, Any]]:
    """Measure many small files, at once and over a distance, and one large file."""
    results = []
    with tempfile.TemporaryDirectory() as name, running_minio() as server:
        folder = Path(name)
        with distant(server, ROUND_TRIP) as far:
            results += _small_files(far, folder / "far", f"{ROUND_TRIP * 1e3:.0f} ms round trip", 5)
        # On one machine client and server share the cores: there is no waiting to fill.
        results += _small_files(server, folder / "near", "loopback", None)
        results += _large_file(server, folder, megabytes)
    return results


def _small_files(
    server: MinioServer, folder: Path, network: str, goal: float | None
) -> list[dict[str, Any]]:
    bucket, store, bare = _clients(server)
    source = folder / "source"
    source.mkdir(parents=True)
    names = [f"{number}.bin" for number in range(FILES)]
    for name in names:
        (source / name).write_bytes(os.urandom(FILE_BYTES))

    def bare_put() -> None:
        for name in names:
            bare.fput_object(bucket, f"bare/{name}", str(source / name))

    def bare_get() -> None:
        for name in names:
            bare.fget_object(bucket, f"bare/{name}", str(folder / "bare" / name))

    return [
        _result(f"{FILES} x 64 KiB {direction}, {network}", [theirs], [ours], goal)
        for direction, theirs, ours in (
            ("put", _seconds(bare_put), _seconds(lambda: store.put_folder(source, "ours"))),
            (
                "get",
                _seconds(bare_get),
                _seconds(lambda: store.get_folder("ours", folder / "ours")),
            ),
        )
    ]


def _large_file(server: MinioServer, folder: Path, megabytes: int) -> list[dict[str, Any]]:
    bucket, store, bare = _clients(server)
    source = folder / "large"
    with source.open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(1 << 20))

    def bare_put() -> None:
        bare.fput_object(bucket, "bare", str(source))

    def bare_get() -> None:
        bare.fget_object(bucket, "bare", str(folder / "bare"))

    def bare_get_checked() -> None:
        bare_get()
        with (folder / "bare").open("rb") as file:
            hashlib.file_digest(file, "sha256")

    def put() -> None:
        store.put(source, "ours")

    def get() -> None:
        store.get("ours", folder / "ours")

    results = []
    for direction, theirs, ours in (
        ("put with SHA-256, against put without", bare_put, put),
        ("get with SHA-256, against get without", bare_get, get),
        ("get with SHA-256, against get and then SHA-256", bare_get_checked, get),
    ):
        # In turns, so that whatever else the machine does falls on both.
        times = [(_seconds(theirs), _seconds(ours)) for _ in range(REPEATS)]
        name = f"one file of {megabytes} MiB on loopback: {direction}"
        results.append(_result(name, [bare for bare, _ in times], [own for _, own in times], 0.9))
    return results


def _clients(server: MinioServer) -> tuple[str, Store, Any]:
    os.environ.update(server.environment())
    bucket = server.make_bucket()
    return bucket, open_store(f"s3://{bucket}"), server.client()


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _result(name: str, bare: list[float], ours: list[float], goal: float | None) -> dict[str, Any]:
    theirs_s, ours_s = statistics.median(bare), statistics.median(ours)
    return {
        "name": f"store: {name}",
        "ratio": round(theirs_s / ours_s, 2),
        "goal": goal,
        "detail": f"bare minio client {theirs_s:.2f} s, ours {ours_s:.2f} s, {len(bare)} run(s)",
    }


@contextmanager
def distant(server: MinioServer, round_trip: float) -> Iterator[MinioServer]:
    """Reach a server through a process that delays every byte by half a round trip each way."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("spawn")
    process = context.Process(
        target=_relay, args=(server.endpoint, round_trip / 2, sender), daemon=True
    )
    process.start()
    try:
        yield replace(server, endpoint=f"http://127.0.0.1:{receiver.recv()}")
    finally:
        process.kill()
        process.join()


def _relay(endpoint: str, delay: float, port: Connection) -> None:
    target = urlsplit(endpoint)

    async def serve() -> None:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection(target.hostname, target.port)
            await asyncio.gather(
                _delayed(reader, far_writer, delay), _delayed(far_reader, writer, delay)
            )

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


async def _delayed(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float
) -> None:
    loop = asyncio.get_running_loop()
    while data := await reader.read(1 << 20):
        loop.call_later(delay, writer.write, data)
    loop.call_later(delay, writer.close)


def main() -> None:
    """Print one JSON line a benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=512, help="size of the large file")
    for result in run(parser.parse_args().megabytes):
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
