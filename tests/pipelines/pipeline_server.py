"""A pipeline server on this machine: keeps pipelines and runs, and executes runs when it is told.

It speaks the calls that `pipelines.backends.kubeflow.server` lists, to any number of clients, and
can be stopped and started again like one whose pod moves. Its pods are the processes of `Launcher`.
"""

import itertools
import json
import os
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from components.core.store_environment import ACCESS_KEY, SECRET_KEY
from pipelines.backends.kubeflow.next_parts import TASK as NEXT_PARTS
from tests.pipelines.conftest import toy_server
from tests.pipelines.launcher import Launcher, TaskFailed

Document = dict[str, Any]


@dataclass
class ServedRun:
    """A run as the server knows it."""

    id: str
    name: str
    pipeline: str
    parameters: dict[str, str]
    state: str = "RUNNING"
    tasks: dict[str, str] = field(default_factory=dict)

    def document(self) -> Document:
        details = [{"display_name": name, "state": state} for name, state in self.tasks.items()]
        return {
            "run_id": self.id,
            "display_name": self.name,
            "state": self.state,
            "state_history": [{"state": self.state, "update_time": "2026-11-28T00:00:00Z"}],
            "run_details": {"task_details": details},
        }


@dataclass
class PipelineServer:
    """The server.

    Attributes:
        folder: For pods and pipelines.
        root: URL of the pipeline root.
        refused: Calls, `METHOD PATH`, that it does not allow.
        on_start: Called with each new run, before the answer goes out.
    """

    folder: Path
    root: str
    refused: Collection[str] = ()
    on_start: Callable[[ServedRun], None] = lambda run: None
    runs: dict[str, ServedRun] = field(default_factory=dict)
    port: int = 0
    _versions: dict[str, tuple[str, str]] = field(default_factory=dict)
    _listening: ThreadingHTTPServer | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Begin to listen, where it did before."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self, "GET")

            def do_POST(self) -> None:
                server.answer(self, "POST")

            def log_message(self, *_: object) -> None:
                pass

        ThreadingHTTPServer.allow_reuse_address = True
        self._listening = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._listening.server_port
        threading.Thread(target=self._listening.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Listen no longer; what it knows stays."""
        assert self._listening is not None
        self._listening.shutdown()
        self._listening.server_close()

    def named(self, name: str) -> list[ServedRun]:
        """Return the runs with a word in their names."""
        return [run for run in self.runs.values() if name in run.name]

    def execute(self, run: ServedRun, failing: Collection[str] = ()) -> None:
        """Run the steps of a run, but those that fail and what depends on them."""
        file = self.folder / f"{run.id}.yaml"
        file.write_text(run.pipeline)
        work = self.folder / run.id
        keys = {"accesskey": os.environ[ACCESS_KEY], "secretkey": os.environ[SECRET_KEY]}
        secrets = {"mlpipeline-minio-artifact": keys}
        launcher = Launcher(
            file, self.root, work, run.parameters, secrets=secrets, server=toy_server()
        )
        launcher.run_id = run.id
        lost: set[str] = set()
        for task in (task for task in launcher.steps() if task != NEXT_PARTS):
            if run.tasks.get(task) == "SUCCEEDED":
                continue
            before = launcher.spec["root"]["dag"]["tasks"][task].get("dependentTasks", ())
            if lost & {*before}:
                lost.add(task)
                continue
            run.tasks[task] = "RUNNING"
            try:
                if task in failing:
                    raise TaskFailed(task)
                launcher.run_task(task)
                run.tasks[task] = "SUCCEEDED"
            except TaskFailed:
                run.tasks[task] = "FAILED"
                lost.add(task)
        run.state = "FAILED" if lost else "SUCCEEDED"

    def answer(self, handler: BaseHTTPRequestHandler, method: str) -> None:
        """Answer a call."""
        address = urlsplit(handler.path)
        path = address.path.removeprefix("/apis/v2beta1/")
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        code, document = 200, {}
        if f"{method} {path}" in self.refused:
            code, document = 403, {"message": "this account may not create runs"}
        else:
            with self._lock:
                found = self._called(method, path.split("/"), query, body)
            code, document = (200, found) if found is not None else (404, {"message": "none"})
        text = json.dumps(document).encode()
        handler.send_response(code)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text)

    def _called(
        self, method: str, path: list[str], query: dict[str, str], body: bytes
    ) -> Document | None:
        wanted = _wanted(query)
        match (method, *path):
            case ("GET", "pipelines"):
                return {"pipelines": [{"pipeline_id": wanted}]}
            case ("GET", "pipelines", _, "versions"):
                known = [i for i, (name, _) in self._versions.items() if name == wanted]
                return {"pipeline_versions": [{"pipeline_version_id": i} for i in known]}
            case ("POST", "pipelines", "upload_version"):
                version = f"version-{len(self._versions)}"
                self._versions[version] = (query["name"], _uploaded(body))
                return {"pipeline_version_id": version}
            case ("GET", "experiments"):
                return {"experiments": [{"experiment_id": "one"}]}
            case ("GET", "runs"):
                return {"runs": [r.document() for r in self.runs.values() if r.name == wanted]}
            case ("POST", "runs"):
                return self._started(json.loads(body)).document()
            case ("GET", "runs", run) if run in self.runs:
                return self.runs[run].document()
            case ("POST", "runs", call) if call.endswith(":terminate"):
                self.runs[call.removesuffix(":terminate")].state = "CANCELED"
                return {}
        return None

    def _started(self, wanted: Document) -> ServedRun:
        version = wanted["pipeline_version_reference"]["pipeline_version_id"]
        number = next(n for n in itertools.count(1) if f"run-{n}" not in self.runs)
        run = ServedRun(
            f"run-{number}",
            wanted["display_name"],
            self._versions[version][1],
            wanted["runtime_config"].get("parameters", {}),
        )
        self.runs[run.id] = run
        self.on_start(run)
        return run


@contextmanager
def pipeline_server(folder: Path, root: str) -> Iterator[PipelineServer]:
    """Serve for as long as the block takes."""
    server = PipelineServer(folder, root)
    folder.mkdir(parents=True, exist_ok=True)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _wanted(query: dict[str, str]) -> str:
    """Return the name that a listing is filtered by."""
    if "filter" not in query:
        return ""
    (predicate,) = json.loads(query["filter"])["predicates"]
    return str(predicate["stringValue"])


def _uploaded(body: bytes) -> str:
    """Return the file in a form."""
    boundary, _, rest = body.partition(b"\r\n")
    return rest.partition(b"\r\n\r\n")[2].partition(b"\r\n" + boundary)[0].decode()
