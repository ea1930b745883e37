"""`moco pull` of a run, and the upload of an artifact, against the bare `minio` client.

`python -m tests.benchmarks.pull [--megabytes 2048]` prints one JSON line a benchmark; a ratio is
the bare client's seconds divided by ours. Ours verifies every file, the bare client none.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minio import Minio

from components.convert import STAGE as CONVERT
from components.convert import ConvertConfig
from components.core.manifest import Code, Manifest, hash_folder, write_manifest
from components.core.store import open_store
from pipelines.backends.base import Settings
from pipelines.backends.kubeflow.backend import Kubeflow
from pipelines.backends.kubeflow.names import pipeline_name
from pipelines.backends.kubeflow.record import ClusterRun
from pipelines.plan import Plan
from pipelines.runs.folder import Run, create_run
from pipelines.runs.pull import pull
from pipelines.runs.record import PLAN, RECORD
from tests.benchmarks.store import distant
from tests.servers.minio import MinioServer, running_minio

FILES = 1000
FILE_BYTES = 64 << 10
ROUND_TRIP = 0.010  # seconds, as from a laptop's town to an object store's first byte
ROUNDS = 3


def run(megabytes: int = 512) -> list[dict[str, Any]]:
    """Measure a run with one artifact of many small files, and one with a single large file."""
    results = []
    with tempfile.TemporaryDirectory() as name, running_minio() as server:
        small = _Case.prepare(Path(name, "small"), server, FILES, FILE_BYTES)
        with distant(server, ROUND_TRIP) as far:
            network = f"{FILES} x 64 KiB, {ROUND_TRIP * 1e3:.0f} ms round trip"
            results += small.measure(far, network, 5, 1)
        results += small.measure(server, f"{FILES} x 64 KiB, loopback", None, 1)
        shutil.rmtree(small.folder)
        large = _Case.prepare(Path(name, "large"), server, 1, megabytes << 20)
        results += large.measure(server, f"one file of {megabytes} MiB, loopback", 0.9, ROUNDS)
    return results


@dataclass(frozen=True)
class _Case:
    """A submitted run with one artifact, and its files as they were written."""

    folder: Path
    bucket: str
    run: Run
    source: Path
    key: str
    names: list[str]

    @classmethod
    def prepare(cls, folder: Path, server: MinioServer, files: int, size: int) -> "_Case":
        """Write an artifact, and upload it as Kubeflow's launcher does: without hashes."""
        bucket = server.make_bucket()
        plan = Plan("bench")
        plan.add(CONVERT, "convert", ConvertConfig(source="random"))
        run = create_run(folder / "runs", plan)
        place = ClusterRun(
            run="run",
            pipeline=pipeline_name(plan),
            namespace="kubeflow",
            server="none",
            artifacts=f"s3://{bucket}/{pipeline_name(plan)}/run",
        )
        place.write(run)
        source = folder / "source"
        _write(source, plan, files, size)
        names = sorted(path.name for path in source.iterdir())
        client, key = server.client(), f"{pipeline_name(plan)}/run/convert/id/backbone"
        for name in names:
            client.fput_object(bucket, f"{key}/{name}", str(source / name))
        for file in (PLAN, RECORD):
            client.fput_object(bucket, f"{place.pipeline}/run/{file}", str(run.folder / file))
        return cls(folder, bucket, run, source, key, names)

    def measure(
        self, server: MinioServer, what: str, goal: float | None, rounds: int
    ) -> list[dict[str, Any]]:
        """Pull and upload in turns with the bare client."""
        os.environ.update(server.environment())
        client = server.client()
        pulls = {
            "pull, against get": lambda: self._bare_get(client),
            "pull, against get and then SHA-256": lambda: self._bare_get(client, hashed=True),
        }
        results = [
            _compared(f"{what}: {name}", bare, self._pull, rounds, goal, self._clear)
            for name, bare in pulls.items()
        ]
        upload = f"{what}: upload with SHA-256, against put without"
        return [
            *results,
            _compared(upload, lambda: self._bare_put(client), self._put, rounds, goal, _nothing),
        ]

    def _pull(self) -> None:
        assert len(pull(self.run, Kubeflow(Settings())).fetched) == 1

    def _put(self) -> None:
        open_store(f"s3://{self.bucket}").put_folder(self.source, "ours")

    def _bare_get(self, client: Minio, hashed: bool = False) -> None:
        for name in self.names:
            path = self.folder / "bare" / name
            client.fget_object(self.bucket, f"{self.key}/{name}", str(path))
            if hashed:
                with path.open("rb") as file:
                    hashlib.file_digest(file, "sha256")

    def _bare_put(self, client: Minio) -> None:
        for name in self.names:
            client.fput_object(self.bucket, f"bare/{name}", str(self.source / name))

    def _clear(self) -> None:
        shutil.rmtree(self.folder / "bare", ignore_errors=True)
        shutil.rmtree(self.run.folder / "convert", ignore_errors=True)


def _write(folder: Path, plan: Plan, files: int, size: int) -> None:
    folder.mkdir()
    for number in range(files):
        with (folder / f"{number:04}.bin").open("wb") as file:
            for start in range(0, size, 1 << 20):
                file.write(os.urandom(min(1 << 20, size - start)))
    config = plan.step("convert").config
    write_manifest(
        folder,
        Manifest(
            stage=CONVERT.name,
            port="backbone",
            kind="Model",
            config=config.model_dump(mode="json"),
            code=Code(version="0", commit=None, digest="0" * 64),
            image="none",
            files=hash_folder(folder),
        ),
    )


def _compared(
    name: str,
    bare: Callable[[], None],
    ours: Callable[[], None],
    rounds: int,
    goal: float | None,
    clear: Callable[[], None],
) -> dict[str, Any]:
    # In turns, so that whatever else the machine does falls on both.
    times: list[tuple[float, float]] = []
    for _ in range(rounds):
        clear()
        times.append((_seconds(bare), _seconds(ours)))
    theirs_s = statistics.median(theirs for theirs, _ in times)
    ours_s = statistics.median(own for _, own in times)
    return {
        "name": f"pull: {name}",
        "ratio": round(theirs_s / ours_s, 2),
        "goal": goal,
        "detail": f"bare minio client {theirs_s:.2f} s, ours {ours_s:.2f} s, {rounds} run(s)",
    }


def _seconds(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _nothing() -> None:
    """Leave everything as it is."""


def main() -> None:
    """Print one JSON line a benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=512, help="size of the large file")
    for result in run(parser.parse_args().megabytes):
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
