"""What is read of a pipeline server that lists tasks by a call of its own, as version 3.0 does."""

import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipelines.backends.kubeflow.connection import Cluster
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.backends.kubeflow.record import ClusterRun
from pipelines.backends.kubeflow.server import Server

PLACE = ClusterRun(run="a1", pipeline="tiny", namespace="ours", server="", artifacts="s3://b/a1")
RUN = {"run_id": "a1", "state": "RUNNING"}
STARTED = "2026-11-27T20:00:00Z"


@contextmanager
def server(answers: Mapping[str, Any]) -> Iterator[Server]:
    """Answer each path with its query, on this machine alone."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path in answers else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answers.get(self.path, {"message": "none"})).encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{listening.server_port}"
        try:
            yield Server(Cluster(ClusterOptions(server=url)))
        finally:
            listening.shutdown()


def test_tasks_are_listed_where_the_run_comes_without() -> None:
    tasks = "/apis/v2beta1/tasks?run_id=a1&page_token="
    ended = {"display_name": "make", "state": "CACHED", "create_time": STARTED, "end_time": STARTED}
    answers = {
        "/apis/v2beta1/runs/a1": RUN,
        tasks: {"tasks": [ended], "next_page_token": "more"},
        f"{tasks}more": {"tasks": [{"display_name": "use", "state": "RUNNING"}]},
    }
    with server(answers) as asked:
        known = asked.run(PLACE)

    assert {name: task.state for name, task in known.tasks.items()} == {
        "make": "reused",
        "use": "running",
    }
    assert known.tasks["make"].ended and known.tasks["use"].ended is None


def test_an_older_server_has_no_such_call_and_its_run_no_tasks_yet() -> None:
    with server({"/apis/v2beta1/runs/a1": RUN}) as asked:
        known = asked.run(PLACE)

    assert (known.state, known.tasks) == ("running", {})
