import os
import shlex
import signal
import subprocess
import sys

from pipelines.backends.base import Backend
from pipelines.backends.findings import Finding
from pipelines.runs.artifacts import artifacts_here
from pipelines.runs.folder import create_run, writable_runs_folder
from pipelines.runs.logs import AttemptLog, FolderFollower, StepLog, read_log
from pipelines.runs.record import StepStatus


class Batch(Backend):
    pause = (0.1, 0.1)

    def start(self, request, display):
        run = create_run(writable_runs_folder(), request.plan, backend="batch", executed_here=False)
        script = run.folder / "run.sh"
        script.write_text("\n".join(["set -e", *(self._line(run, step) for step in run.plan)]))
        process = subprocess.Popen(["sh", script], start_new_session=True)
        run.write_record(run.record.model_copy(update={"place": {"pid": str(process.pid)}}))
        return run

    def _line(self, run, step):
        (run.folder / step.name).mkdir()
        outputs = run.artifacts(step.name, step.stage.outputs)
        inputs = {}
        for name, source in step.sources():
            port, _, key = name.partition(".")
            path = str(run.artifact(source.step, source.port, source.kind))
            inputs[port] = {**inputs.get(port, {}), key: path} if key else path
        argv = step.stage.argv(step.config, inputs, {p: str(path) for p, path in outputs.items()})
        environment = ["MOCO_LOG=json", "OMP_NUM_THREADS=1", f"PYTHONPATH={':'.join(sys.path)}"]
        command = shlex.join(["env", *environment, sys.executable, *argv])
        code = shlex.quote(str(run.folder / step.name / "code"))
        log = shlex.quote(str(run.log(step.name)))
        return (
            f": > {log}; {command} >{log} 2>&1 && echo 0 > {code} || {{ echo $? > {code}; exit; }}"
        )

    def refresh(self, run):
        states = {}
        for step in run.record.steps:
            code, before = run.folder / step / "code", run.status(step)
            ended = int(code.read_text() or 0) if code.exists() else None
            begun = "running" if run.log(step).exists() else "waiting"
            states[step] = begun if ended is None else "failed" if ended else "finished"
            status = StepStatus(state=states[step], exit_code=ended, attempt=1)
            if (status.state, status.exit_code) != (before.state, before.exit_code):
                run.write_status(step, status)
        over = "failed" if "failed" in states.values() else "finished"
        if over == "failed" or {*states.values()} == {"finished"}:
            run.write_record(run.record.model_copy(update={"state": over}))

    def progress(self, run):
        return self.follow(run, run.record.steps).news()

    def logs(self, run, steps):
        for step in steps:
            yield step, StepLog([AttemptLog(1, lambda step=step: read_log(run.log(step)))])

    def follow(self, run, steps):
        return FolderFollower({step: run.log(step) for step in steps})

    def cancel(self, run):
        os.killpg(int(run.record.place["pid"]), signal.SIGTERM)
        return f"{run.id} is stopped"

    def retry(self, run, display):
        raise NotImplementedError

    def artifacts(self, run):
        return artifacts_here(run)

    def doctor(self, plan=None, **_):
        yield Finding("ok", "a shell", check="shell")


BACKEND = Batch
