import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from components.core.errors import UsageError
from pipelines.backends.base import Backend, Checkup, Request
from pipelines.backends.findings import Finding
from pipelines.plan import Output, Step
from pipelines.runs.artifacts import StoredArtifacts, artifacts_here
from pipelines.runs.folder import Run, create_run, writable_runs_folder
from pipelines.runs.logs import AttemptLog, Event, FolderFollower, StepLog, read_log
from pipelines.runs.progress import Display
from pipelines.runs.record import StepStatus


class Batch(Backend):
    pause = (0.1, 0.1)

    def start(self, request: Request, display: Display) -> Run:
        runs = writable_runs_folder()
        run = create_run(runs, request.plan, backend="batch", executed_here=False)
        script = run.folder / "run.sh"
        script.write_text("\n".join(self._line(run, step) for step in run.plan))
        process = subprocess.Popen(["sh", script], start_new_session=True)
        run.write_record(run.record.model_copy(update={"place": {"pid": str(process.pid)}}))
        return run

    def _line(self, run: Run, step: Step) -> str:
        (run.folder / step.name).mkdir()
        inputs: dict[str, Any] = {}
        for name, source in step.sources():
            assert isinstance(source, Output)
            port, _, key = name.partition(".")
            path = str(run.artifact(source.step, source.port, source.kind))
            inputs[port] = {**inputs.get(port, {}), key: path} if key else path
        outputs = run.artifacts(step.name, step.stage.outputs)
        argv = step.stage.argv(step.config, inputs, {p: str(path) for p, path in outputs.items()})
        environment = ["MOCO_LOG=json", "OMP_NUM_THREADS=1", f"PYTHONPATH={':'.join(sys.path)}"]
        command = shlex.join(["env", *environment, sys.executable, *argv])
        log, code = (shlex.quote(str(run.folder / step.name / n)) for n in ("log.jsonl", "code"))
        return f"{command} >{log} 2>&1; echo $? >{code}; grep -q '^0' {code} || exit"

    def refresh(self, run: Run) -> None:
        states = []
        for step in run.record.steps:
            code = run.folder / step / "code"
            text = code.read_text() if code.exists() else ""
            begun = "running" if run.log(step).exists() else "waiting"
            states.append("failed" if text.strip("0\n") else "finished" if text else begun)
            if run.status(step).state != states[-1]:
                ended = int(text) if text else None
                run.write_status(step, StepStatus(state=states[-1], exit_code=ended, attempt=1))
        over = "failed" if "failed" in states else "finished"
        if over == "failed" or {*states} == {over}:
            run.write_record(run.record.model_copy(update={"state": over}))

    def progress(self, run: Run) -> Iterator[tuple[str, Event]]:
        return self.follow(run, run.record.steps).news()

    def logs(self, run: Run, steps: Sequence[str]) -> Iterator[tuple[str, StepLog]]:
        for step in steps:
            yield step, StepLog([AttemptLog(1, partial(read_log, run.log(step)))])

    def follow(self, run: Run, steps: Sequence[str]) -> FolderFollower:
        return FolderFollower({step: run.log(step) for step in steps})

    def cancel(self, run: Run) -> str:
        os.killpg(int(run.record.place["pid"]), signal.SIGTERM)
        return f"{run.id} is stopped"

    def retry(self, run: Run, display: Display) -> None:
        raise UsageError("submit it again")

    def artifacts(self, run: Run) -> StoredArtifacts:
        return artifacts_here(run)

    def doctor(self, checkup: Checkup) -> Iterator[Finding]:
        yield Finding("ok", "a shell", check="shell")


BACKEND = Batch
