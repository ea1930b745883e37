"""Submitted runs without a pipeline server: their layout in a store, made by real stages."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.core.kind import ArtifactKind
from components.core.manifest import Code, Lineage, Manifest, hash_folder, write_manifest
from components.core.metrics import Metrics, write_metrics
from components.core.stage import Stage
from components.core.store import Store, open_store
from pipelines.backends.kubeflow.artifacts import find_artifacts
from pipelines.backends.kubeflow.compile import compile_plan
from pipelines.backends.kubeflow.names import pipeline_name
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.backends.kubeflow.record import ClusterRun
from pipelines.plan import Plan
from pipelines.runs.artifacts import StoredArtifacts, Urls, urls_of
from pipelines.runs.folder import Run, create_run
from pipelines.runs.record import PLAN, RECORD, Parent
from tests.pipelines.launcher import Launcher
from tests.servers.minio import MinioServer

OPTIONS = ClusterOptions(images={"torch": "registry.example/torch@sha256:1234"})
ROOT = "v2/artifacts"
SECRETS = {"mlpipeline-minio-artifact": {"accesskey": "a-key", "secretkey": "a-secret"}}


@dataclass
class CachingLauncher(Launcher):
    """A run in which Kubeflow's cache satisfies some tasks with outputs of an earlier one."""

    earlier: Launcher | None = None
    cached: Sequence[str] = ()

    def steps(self) -> list[str]:
        return [task for task in super().steps() if task not in self.cached]

    def _task_root(self, task: str) -> str:
        if self.earlier and task in self.cached:
            return self.earlier._task_root(task)
        return super()._task_root(task)


@dataclass
class Bucket:
    """Stands for the store behind a pipeline server: a folder, copied into a bucket when asked.

    Attributes:
        folder: The store's content.
        runs: Folder of the runs of the one who submits.
        url: How the pods call the store.
    """

    folder: Path
    runs: Path
    url: str = "s3://mlpipeline"
    work: int = field(default=0, init=False)

    def submit(
        self,
        plan: Plan,
        earlier: Launcher | None = None,
        cached: Sequence[str] = (),
        parent: Parent | None = None,
        execute: bool = True,
    ) -> tuple[Run, Launcher]:
        """Compile a plan, execute what is not cached, and write down the run as `submit` does."""
        self.work += 1
        compiled = self.folder.with_name(f"compiled-{self.work}.yaml")
        compile_plan(plan, compiled, OPTIONS)
        launcher = CachingLauncher(
            compiled,
            root=str(self.folder / ROOT),
            work=self.folder.with_name(f"pods-{self.work}"),
            secrets=SECRETS,
            environment={"OMP_NUM_THREADS": "1"},
            earlier=earlier,
            cached=cached,
        )
        run = self.write_down(plan, launcher.run_id, parent)
        if execute:
            launcher.run()
        return run, launcher

    def write_down(self, plan: Plan, name: str, parent: Parent | None = None) -> Run:
        """Make the run's folder here, and put its plan and its record beside its artifacts."""
        run = create_run(self.runs, plan, parent=parent, executed_here=False)
        place = ClusterRun(
            run=name,
            pipeline=pipeline_name(plan),
            namespace="kubeflow",
            server="nowhere",
            artifacts=f"{self.url}/{ROOT}/{pipeline_name(plan)}/{name}",
        )
        place.write(run)
        folder = self.pipeline(plan) / name
        folder.mkdir(parents=True, exist_ok=True)
        for file in (PLAN, RECORD):
            (folder / file).write_bytes((run.folder / file).read_bytes())
        return run

    def pipeline(self, plan: Plan) -> Path:
        """Return the folder of a pipeline's runs."""
        return self.folder / ROOT / pipeline_name(plan)

    def upload(self, server: MinioServer, bucket: str) -> None:
        """Copy the store into a real bucket as Kubeflow's launcher uploads: without any hash."""
        client = server.client()
        for path in sorted(self.folder.rglob("*")):
            if path.is_file():
                client.fput_object(bucket, path.relative_to(self.folder).as_posix(), str(path))


def make_step(
    folder: Path,
    stage: Stage[Any],
    config: Any,
    inputs: Mapping[str, Lineage] | None = None,
    value: float = 1.0,
    files: int = 1,
    size: int = 100,
) -> None:
    """Write the outputs of a toy as the toy writes them, below `RUN/TASK/ID`."""
    model, metrics = folder / "model", folder / "metrics"
    model.mkdir(parents=True)
    metrics.mkdir()
    for number in range(files):
        part = model / f"part-{number % 7}" / f"{number:04}.bin"
        part.parent.mkdir(exist_ok=True)
        part.write_bytes(f"{value}-{number}".encode().ljust(size, b"."))
    write_metrics(metrics, Metrics(values={"value": value}))
    for port, path in (("model", model), ("metrics", metrics)):
        kind: ArtifactKind = stage.outputs[port].kind
        write_manifest(
            path,
            Manifest(
                stage=stage.name,
                port=port,
                kind=kind,
                config=config.model_dump(mode="json"),
                code=Code(version="0", commit=None, digest="0" * 64),
                image="registry.example/torch@sha256:1234",
                files=hash_folder(path),
                inputs=dict(inputs or {}),
            ),
        )


@dataclass(frozen=True)
class Opened:
    """A backend of submitted runs whose stores are opened in a way of one's own."""

    store_at: Callable[[str], Store]

    def artifacts(self, run: Run) -> StoredArtifacts:
        return find_artifacts(run, self.store_at(ClusterRun.of(run).store), self.store_at)

    def store(self, url: str, run: Run) -> Store:
        return self.store_at(url)


def urls(run: Run, store: Store | None = None) -> Urls:
    """Return where the finished artifacts of a submitted run are."""
    return urls_of(find_artifacts(run, store or open_store(ClusterRun.of(run).store)))


def new_id() -> str:
    """Return an id as Kubeflow gives them."""
    return str(uuid.uuid4())
