"""Runs a plan on this machine: each step a subprocess, what exists already reused."""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import FrameType

from components.core.errors import ExitCode
from components.core.stage import Mount
from components.core.stage import Source as StageSource
from pipelines.backends.local.forecast import encoder_costs, estimate_step, remaining_seconds
from pipelines.backends.local.forkserver import ForkServer
from pipelines.backends.local.machine import Machine
from pipelines.backends.local.process import StepProcess, describe_exit, import_path
from pipelines.backends.local.reuse import (
    Ingredients,
    ReuseIndex,
    ingredients_of,
    link_outputs,
    output_digest,
    outputs_intact,
    remove_outputs,
    state_key_of,
)
from pipelines.backends.local.sources import Sources
from pipelines.plan import Mounted, Output, Source, Step
from pipelines.runs.folder import Run
from pipelines.runs.logs import ATTEMPT, LogFollower, last_lines
from pipelines.runs.progress import Display
from pipelines.runs.record import DONE, LOST, STATE, StepStatus
from pipelines.words import became, number

PAUSE = 0.05  # seconds between two looks at the steps


def execute(run: Run, sources: Sources, machine: Machine, display: Display) -> int:
    """Execute what is not done yet of a run, and return the exit code.

    The steps of a rerun are executed even if their artifacts exist in another run.

    A failed step does not stop those that do not depend on it. SIGINT, SIGTERM
    or SIGHUP stops the steps, which save first; the same run can then be executed
    again, and goes on where it was.

    Returns:
        0; the exit code of the step that failed first; or 75 after a signal.

    Raises:
        UsageError: if somebody else executes the run.
    """
    with run.lock() as lock, _signals() as signals:
        execution = _Execution(run, sources, machine, display, lock, signals)
        steps = run.record.steps
        title = f"run {run.id}: {number(len(steps), 'step')}, {machine.words()}"
        display.start(title, steps)
        try:
            return execution.work()
        finally:
            execution.stop()
            display.stop()


@dataclass(frozen=True)
class _Ready:
    """A step that must run, and all that it needs for that."""

    step: Step
    ingredients: Ingredients
    left_out: tuple[str, ...]
    reason: str


@dataclass
class _Running:
    """A step that runs."""

    ready: _Ready
    process: StepProcess
    log: LogFollower
    gpus: tuple[str, ...]


@dataclass
class _Execution:
    """One attempt at what is left of a run."""

    run: Run
    sources: Sources
    machine: Machine
    display: Display
    lock: int
    signals: list[int]
    statuses: dict[str, StepStatus] = field(default_factory=dict)
    ready: dict[str, _Ready] = field(default_factory=dict)
    running: dict[str, _Running] = field(default_factory=dict)
    exit_code: int = ExitCode.OK
    server: ForkServer | None = None

    def __post_init__(self) -> None:
        self.index = ReuseIndex(self.run.folder.parent)
        record = self.run.record
        self.again = set(record.parent.steps) if record.parent else set()
        plan = self.run.plan
        costs = encoder_costs(plan, self.sources)
        estimates = {
            s.name: estimate_step(s, plan.scale, self.machine, self.index, costs[s.name])
            for s in plan
        }
        self.remaining = remaining_seconds(plan, estimates)

    def work(self) -> int:
        """Run steps until none is left or a signal came."""
        self.run.write_record(
            self.run.record.model_copy(update={"state": "running", "ended": None})
        )
        for name, status in self.run.statuses().items():
            fresh = status.model_copy(update={"state": "waiting", "reason": "", "exit_code": None})
            self.statuses[name] = fresh
            if status.state in LOST:
                self.run.write_status(name, fresh)
        while not self.signals and not all(map(self._settled, self.statuses)):
            self._decide()
            self._start_ready()
            self._collect()
            self.display.tick()
            time.sleep(PAUSE if self.running else 0)
        return self._finish()

    def stop(self) -> None:
        """Stop what still runs: a chance to save, or after a second signal none."""
        if self.server:
            self.server.stop()
        if self.running and self.signals:
            self.display.note("stopping: the steps save first; a second signal kills them")
        for running in self.running.values():
            running.process.terminate()
        while self.running:
            if len(self.signals) > 1:
                for running in self.running.values():
                    running.process.kill()
            with suppress(OSError):  # a full disk must not leave processes behind
                self._collect()
            self.display.tick()
            time.sleep(PAUSE)

    def _finish(self) -> int:
        self.stop()
        bad = any(status.state in LOST for status in self.statuses.values())
        state = "interrupted" if self.signals else "failed" if bad else "finished"
        self.run.write_record(
            self.run.record.model_copy(update={"state": state, "ended": datetime.now(UTC)})
        )
        return ExitCode.INTERRUPTED if self.signals else self.exit_code

    def _decide(self) -> None:
        """Settle every step that needs no process, until that settles no other."""
        settled = True
        while settled and not self.signals:
            settled = False
            for step in self.run.plan:
                if self.statuses[step.name].state != "waiting" or step.name in self.ready:
                    continue
                if all(self._settled(name) for name in step.upstream):
                    settled |= self._decide_step(step)

    def _settled(self, name: str) -> bool:
        return self.statuses[name].state not in ("waiting", "running")

    def _decide_step(self, step: Step) -> bool:
        """Skip a step, reuse its artifacts, or make it ready; say whether it is settled."""
        left_out = tuple(name for name, source in step.sources() if not self._is_there(source))
        before = self.statuses[step.name]
        if reason := self._why_skipped(step, left_out):
            update = {"state": "skipped", "reason": reason}
            self._change(step.name, before.model_copy(update=update))
            return True
        digests = {name: self._digest(s) for name, s in step.sources() if name not in left_out}
        ingredients = ingredients_of(step, digests)
        status = before.model_copy(update={"key": ingredients.key, "left_out": left_out})
        if before.key == ingredients.key and outputs_intact(self.run, step):
            state = "reused" if before.origin else "finished"
            self._change(step.name, status.model_copy(update={"state": state}))
            return True
        made = None if step.name in self.again else self.index.find(ingredients, step)
        if made is None:
            again = step.name in self.again
            reason = "asked for" if again else self.index.why_not(ingredients, step.name)
            self.ready[step.name] = _Ready(step, ingredients, left_out, reason)
            return False
        if made == (self.run, step.name):  # the runner was killed before it could say so
            self._change(step.name, status.model_copy(update={"state": "finished"}))
            return True
        link_outputs(*made, self.run, step)
        origin = f"{made[0].id}/{made[1]}"
        self._change(step.name, status.model_copy(update={"state": "reused", "origin": origin}))
        self.index.record(ingredients, self.run, step, gpus=0)
        return True

    def _is_there(self, source: Source) -> bool:
        return not isinstance(source, Output) or self.statuses[source.step].state in DONE

    def _why_skipped(self, step: Step, left_out: tuple[str, ...]) -> str:
        """Say why a step cannot run; of a `many` port's inputs some may be missing, not all."""
        sources = dict(step.sources())
        for name in left_out:
            port, _, key = name.partition(".")
            members = [name for name in sources if name.startswith(f"{port}.")]
            if not key or all(member in left_out for member in members):
                source = sources[name]
                assert isinstance(source, Output)
                return became(source.step, self.statuses[source.step].state)
        return ""

    def _digest(self, source: Source) -> str:
        if isinstance(source, Output):
            return output_digest(self.run, source)
        return self.sources.digest(source)

    def _start_ready(self) -> None:
        """Start ready steps, those with the longest way to the end first, within the machine."""
        busy = {gpu for running in self.running.values() for gpu in running.gpus}
        free = [gpu for gpu in self.machine.gpus if gpu not in busy]
        waits_for_gpus = False
        for ready in sorted(
            self.ready.values(), key=lambda r: self.remaining[r.step.name], reverse=True
        ):
            if len(self.running) >= self.machine.jobs:
                return
            if any(r.ready.ingredients.key == ready.ingredients.key for r in self.running.values()):
                continue  # the same work: its artifacts will be reused
            wanted = self.machine.gpus_for(ready.step.stage.resources, self.run.plan.scale)
            if wanted and (waits_for_gpus or wanted > len(free)):
                waits_for_gpus = True  # smaller ones would keep it waiting for ever
                continue
            made = None if ready.step.name in self.again else self._made_meanwhile(ready)
            del self.ready[ready.step.name]
            if not made:
                self._start(ready, tuple(free[:wanted]))
                free = free[wanted:]

    def _made_meanwhile(self, ready: _Ready) -> bool:
        """Say whether a twin of the step has finished since; it is then decided again."""
        return self.index.find(ready.ingredients, ready.step) not in (
            None,
            (self.run, ready.step.name),
        )

    def _start(self, ready: _Ready, gpus: tuple[str, ...]) -> None:
        step, before = ready.step, self.statuses[ready.step.name]
        folder = self.run.folder / step.name
        folder.mkdir(exist_ok=True)
        remove_outputs(self.run, step)
        state_key = state_key_of(step, ready.ingredients.inputs)
        if before.state_key != state_key:
            shutil.rmtree(folder / STATE, ignore_errors=True)
        (folder / "config.json").write_text(step.config.to_json(), "utf-8")
        argv = step.stage.argv(
            f"@{folder / 'config.json'}",
            self._inputs(ready),
            {p: str(path) for p, path in self.run.artifacts(step.name, step.stage.outputs).items()},
            str(folder / STATE) if step.stage.resumable else None,
        )
        attempt, now = before.attempt + 1, datetime.now(UTC)
        log = self.run.log(step.name)
        with log.open("a", encoding="utf-8") as file:
            begin = {"event": ATTEMPT, "attempt": attempt, "timestamp": now.isoformat()}
            file.write(json.dumps(begin) + "\n")
        follower = LogFollower(log, log.stat().st_size)
        environment = {"MOCO_LOG": "json", **self.machine.environment(gpus)}
        process = StepProcess.start(argv, environment, log, [self.lock], self._fork_server())
        self.running[step.name] = _Running(ready, process, follower, gpus)
        self._change(
            step.name,
            StepStatus(
                state="running",
                reason=ready.reason,
                attempt=attempt,
                key=None,
                state_key=state_key,
                left_out=ready.left_out,
                gpus=gpus,
                pid=process.pid,
                started=now,
            ),
        )

    def _fork_server(self) -> ForkServer | None:
        """Return what forks steps, begun with the first one of several; none at full scale.

        There a step takes hours, and its imports seconds.
        """
        several = sum(status.state == "waiting" for status in self.statuses.values()) > 1
        wanted = self.run.plan.scale == "digits" and os.environ.get("MOCO_FORK") != "0"
        if self.server is None and wanted and several:
            self.server = ForkServer({**import_path(), **self.machine.environment(())})
        return self.server

    def _inputs(self, ready: _Ready) -> dict[str, StageSource | Mapping[str, StageSource]]:
        inputs: dict[str, StageSource | Mapping[str, StageSource]] = {}
        for port, bound in ready.step.inputs.items():
            if isinstance(bound, Mapping):
                inputs[port] = {
                    key: self._argument(source)
                    for key, source in bound.items()
                    if f"{port}.{key}" not in ready.left_out
                }
            else:
                inputs[port] = self._argument(bound)
        return inputs

    def _argument(self, source: Source) -> StageSource:
        if isinstance(source, Output):
            return str(self.run.artifact(source.step, source.port, source.kind))
        path = str(self.sources.path(source))
        return Mount(path) if isinstance(source, Mounted) else path

    def _collect(self) -> None:
        """Show the progress of the running steps, and settle those that have ended."""
        for name, running in list(self.running.items()):
            code = running.process.poll()
            for event in running.log.read():
                self.display.progressed(name, event)
            if code is not None:
                del self.running[name]
                self._settle(name, running, code)

    def _settle(self, name: str, running: _Running, code: int) -> None:
        step = running.ready.step
        exit_code, words = describe_exit(code)
        if exit_code == ExitCode.OK and not outputs_intact(self.run, step):
            exit_code, words = ExitCode.FAILURE, "it ended well, but its outputs are not whole"
        status = self.statuses[name].model_copy(
            update={"pid": None, "exit_code": exit_code, "ended": datetime.now(UTC)}
        )
        if exit_code == ExitCode.OK:
            key = running.ready.ingredients.key
            self._change(name, status.model_copy(update={"state": "finished", "key": key}))
            self.index.record(running.ready.ingredients, self.run, step, len(running.gpus))
            shutil.rmtree(self.run.folder / name / STATE, ignore_errors=True)
            return
        stopped = bool(running.process.terminated) or exit_code == ExitCode.INTERRUPTED
        lines = last_lines(self.run.log(name))
        reason = "\n".join(part for part in (lines, words) if part)
        state = "interrupted" if stopped else "failed"
        if not running.process.terminated:
            self.exit_code = self.exit_code or exit_code
        self._change(name, status.model_copy(update={"state": state, "reason": reason}))

    def _change(self, name: str, status: StepStatus) -> None:
        self.statuses[name] = status
        self.run.write_status(name, status)
        self.display.changed(name, status)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect the signals that ask to stop, instead of dying of them."""
    received: list[int] = []

    def receive(number: int, _: FrameType | None) -> None:
        received.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, receive) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
