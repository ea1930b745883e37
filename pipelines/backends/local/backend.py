"""Runs plans on this machine, each step a subprocess; a run is over when `start` returns."""

import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from components.core.config import not_installed
from components.core.errors import ConfigError, DataError, MocoError, UsageError
from pipelines.backends.base import Backend, Checkup, Request, Settings, Whereabouts
from pipelines.backends.findings import Finding
from pipelines.backends.local.execute import execute
from pipelines.backends.local.machine import Machine, this_machine
from pipelines.backends.local.reuse import state_key_of
from pipelines.backends.local.sources import Sources, find_sources
from pipelines.plan import Output, Plan
from pipelines.runs.artifacts import StoredArtifacts, artifacts_here
from pipelines.runs.folder import (
    Run,
    all_runs,
    create_run,
    forget_run,
    runs_folder,
    writable_runs_folder,
)
from pipelines.runs.logs import (
    PAUSE,
    AttemptLog,
    Event,
    FolderFollower,
    Follower,
    StepLog,
    read_log,
)
from pipelines.runs.progress import Display
from pipelines.runs.record import DONE, LOCK, STATE, Parent, StepStatus
from pipelines.words import number

NAME = "local"


class Local(Backend):
    """This machine."""

    pause = (PAUSE, PAUSE)

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._followers: dict[Run, FolderFollower] = {}

    def start(self, request: Request, display: Display) -> Run:
        """Execute a plan: what is left of the unfinished run of it, or a new run."""
        plan = request.plan
        machine = self._machine(plan)
        runs = writable_runs_folder()
        sources = find_sources(plan, request.data, runs)
        mounts = {name: str(folder) for name, folder in sources.mounts.items()}
        parent = _parent(request)
        run = None if request.new else unfinished_run(runs, plan, mounts, parent)
        if run:
            done = sum(status.state in DONE for status in run.statuses().values())
            steps = number(len(plan.steps), "step")
            display.note(f"continuing {run.id}, {done} of {steps} done")
        else:
            run = create_run(runs, plan, mounts, parent, backend=NAME)
        if request.source and request.resume:
            hand_over(request.source, run, request.resume, sources)
        execute(run, sources, machine, display)
        return run

    def retry(self, run: Run, display: Display) -> None:
        """Execute what is not done of a run."""
        machine = self._machine(run.plan)
        sources = find_sources(run.plan, run.record.mounts, runs_folder())
        execute(run, sources, machine, display)

    def cancel(self, run: Run) -> str:
        """Ask the process that executes a run to stop."""
        if not run.is_locked():
            raise UsageError(f"run {run.id} is {run.state}: nothing executes it")
        os.kill(int((run.folder / LOCK).read_text()), signal.SIGTERM)
        return f"{run.id} is being stopped; its steps save first. `moco run` goes on with it."

    def refresh(self, run: Run) -> None:
        """Do nothing: who executes a run writes down how it goes."""

    def progress(self, run: Run) -> Iterable[tuple[str, Event]]:
        """Return what steps have said since they were asked last."""
        if run not in self._followers:
            self._followers[run] = FolderFollower(
                {step: run.log(step) for step in run.record.steps}
            )
        return self._followers[run].news()

    def logs(self, run: Run, steps: Sequence[str]) -> Iterator[tuple[str, StepLog]]:
        """Yield the logs of steps; that of a reused one is the log of the step that made it."""
        for step in steps:
            maker, name = run.maker(step)
            note = ""
            if maker != run:
                note = f"{step} was reused; this is what it said in {maker.id}"
            elif not run.log(step).exists():
                note = f"{step} has said nothing: it is {run.status(step).state}"
            yield step, StepLog([AttemptLog(1, partial(read_log, maker.log(name)))], note)

    def follow(self, run: Run, steps: Sequence[str]) -> Follower:
        """Follow the logs of steps."""
        return FolderFollower({step: run.log(step) for step in steps})

    def artifacts(self, run: Run) -> StoredArtifacts:
        """Return the finished artifacts in a run's folder; a damaged one is none."""
        return artifacts_here(run, damaged=False)

    def whereabouts(self, run: Run) -> Whereabouts:
        """Say that it is here."""
        return Whereabouts(NAME)

    def doctor(self, checkup: Checkup) -> Iterator[Finding]:
        """Check what `start` would refuse."""
        machine, plan = this_machine(self.settings.jobs), checkup.plan
        checks: dict[str, Callable[[], str]] = {
            "machine": machine.words,
            "runs": lambda: f"written to {writable_runs_folder()}",
        }
        if plan:
            checks |= {
                "GPUs": lambda: _need_gpus(plan, machine),
                "packages": lambda: _need_packages(plan),
                "data sets": lambda: _need_sources(plan, checkup.data),
            }
        for name, check in checks.items():
            try:
                yield Finding("ok", check(), check=name)
            except MocoError as error:
                yield Finding("failed", str(error), code=error.exit_code, check=name)

    def _machine(self, plan: Plan) -> Machine:
        """Return this machine, or refuse a plan that it lacks something for."""
        machine = this_machine(self.settings.jobs)
        _need_gpus(plan, machine)
        _need_packages(plan)
        return machine


BACKEND = Local


def unfinished_run(
    runs: Path, plan: Plan, mounts: Mapping[str, str], parent: Parent | None = None
) -> Run | None:
    """Return the newest run of the same plan on the same data, if it did not finish."""
    text = plan.to_json()
    for run in all_runs(runs):
        record = run.record
        if (record.backend, record.parent, record.mounts) != (NAME, parent, mounts):
            continue
        if run.plan_text == text:
            return None if record.state == "finished" else run
    return None


def hand_over(source: Run, run: Run, step: str, sources: Sources) -> None:
    """Give a step of a new run the checkpoints of an earlier run's attempt.

    Raises:
        DataError: if it would not do the same work: another stage, config or data.
    """
    if run.status(step).attempt:
        return  # it has gone on from there already
    digests = {
        name: sources.digest(source_of_input)
        for name, source_of_input in run.plan.step(step).sources()
        if not isinstance(source_of_input, Output)
    }
    key = state_key_of(run.plan.step(step), digests)
    if source.status(step).state_key != key:
        forget_run(run)
        raise DataError(
            f"{step} cannot continue the attempt of run {source.id}: its config or its inputs are "
            "not the same any more; without --continue it starts anew"
        )
    shutil.copytree(_state_of(source, step), run.folder / step / STATE, dirs_exist_ok=True)
    run.write_status(step, StepStatus(state_key=key))


def _parent(request: Request) -> Parent | None:
    """Write down which run a rerun comes from."""
    source, resume = request.source, request.resume
    if source is None:
        return None
    states = {resume: str(_state_of(source, resume))} if resume else {}
    return Parent(run=source.id, steps=tuple(request.plan.steps), states=states)


def _state_of(run: Run, step: str) -> Path:
    """Return the folder with a step's checkpoints.

    Raises:
        UsageError: if it keeps none.
    """
    folder = run.folder / step / STATE
    if not folder.is_dir():
        raise UsageError(
            f"{step} of run {run.id} is {run.status(step).state} and keeps no checkpoint to "
            "continue from; without --continue it starts anew"
        )
    return folder


def _need_gpus(plan: Plan, machine: Machine) -> str:
    """Refuse paper-size training on a machine without GPUs: it would take years."""
    wanting = [step.name for step in plan if step.stage.resources.gpus]
    if plan.scale == "full" and wanting and not machine.gpus:
        raise UsageError(
            f"{plan.name} at full scale has {number(len(wanting), 'step')} to train on GPUs "
            f"({wanting[0]} first), and this machine has none. For the miniature on this machine, "
            f"add --scale digits; for a cluster: moco compile {plan.name} -o {plan.name}.yaml"
        )
    return number(len(machine.gpus), "GPU") if machine.gpus else "none, and none is needed"


def _need_packages(plan: Plan) -> str:
    """Refuse a plan with steps that want what this Python has not; in their images it is there."""
    lacking: dict[tuple[str, str], list[str]] = {}
    for step in plan:
        for package in not_installed(step.config).items():
            lacking.setdefault(package, []).append(step.name)
    if lacking:
        raise ConfigError(
            "\n".join(
                f"{number(len(steps), 'step')} ({steps[0]} first) cannot run without {name}, which "
                f"is not installed: {way}"
                for (name, way), steps in lacking.items()
            )
        )
    return "all that its steps need is installed"


def _need_sources(plan: Plan, data: Mapping[str, str]) -> str:
    """Refuse a plan of which a data set or a checkpoint is not there."""
    sources = find_sources(plan, data, runs_folder())
    return ", ".join(map(str, sources.mounts.values())) or "it mounts none"
