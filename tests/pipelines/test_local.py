"""The embedded runner, with real subprocesses of a real, tiny stage."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import components
from components.core import code_digest, version
from components.core.errors import ExitCode, UsageError
from components.core.manifest import read_manifest
from components.core.metrics import read_metrics
from components.core.stage import Stage
from pipelines.backends.local.execute import _Execution
from pipelines.plan import Plan
from pipelines.runs.folder import Run, create_run
from pipelines.runs.logs import last_attempt, read_log
from tests.pipelines.conftest import ROOT, WORLD, Execute

SECONDS = 120  # for what takes one or two, but for a machine that is busy with other tests

pytestmark = pytest.mark.usefixtures("started")


@pytest.fixture(scope="module")
def started(world: Path) -> Iterator[None]:
    """Start each toy by itself, as at full scale."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Execution, "_fork_server", lambda _: None)
        yield


def chain(toy: Stage[Any], **second: Any) -> Plan:
    """A model and a measurement of it."""
    plan = Plan("chain", "digits")
    first = plan.add(toy, "first", toy.config(value=1.0))
    plan.add(toy, "second", toy.config(value=2.0, **second), model=first.output("model"))
    return plan


def states(run: Run) -> dict[str, str]:
    return {name: status.state for name, status in run.statuses().items()}


def environment(run: Run, step: str) -> dict[str, Any]:
    events = last_attempt(read_log(run.log(step)))
    return next(event for event in events if event["event"] == "environment")


def test_a_run_leaves_artifacts_status_and_logs_of_every_step(
    toy: Stage[Any], run_plan: Execute
) -> None:
    run, code = run_plan(chain(toy))

    assert code == 0
    assert run.state == "finished"
    assert states(run) == {"first": "finished", "second": "finished"}
    assert read_metrics(run.artifact("second", "metrics")).values == {"value": 2.0}
    manifest = read_manifest(run.artifact("second", "metrics"))
    assert manifest.inputs["model"].digest == read_manifest(run.artifact("first", "model")).digest
    assert read_log(run.log("second"))[0]["attempt"] == 1
    assert not (run.folder / "second" / "state").exists()


def test_the_second_run_of_a_plan_reuses_everything_by_hard_links(
    toy: Stage[Any], run_plan: Execute
) -> None:
    first, _ = run_plan(chain(toy))
    second, code = run_plan(chain(toy))

    assert code == 0
    assert states(second) == {"first": "reused", "second": "reused"}
    assert second.status("second").origin == f"{first.id}/second"
    files = [run.artifact("second", "metrics") / "metrics.json" for run in (first, second)]
    assert files[0].stat().st_ino == files[1].stat().st_ino


def test_another_config_runs_again_and_what_is_upstream_of_it_does_not(
    toy: Stage[Any], run_plan: Execute
) -> None:
    run_plan(chain(toy))
    run, _ = run_plan(chain(toy, seed=7))

    assert states(run) == {"first": "reused", "second": "finished"}
    assert run.status("second").reason == "config.seed was 0, is 7"


def test_what_gives_the_same_artifact_leaves_the_steps_after_it_reused(
    toy: Stage[Any], run_plan: Execute
) -> None:
    run_plan(chain(toy))
    plan = Plan("chain", "digits")
    first = plan.add(toy, "first", toy.config(value=1.0, seed=3))
    plan.add(toy, "second", toy.config(value=2.0), model=first.output("model"))

    run, _ = run_plan(plan)

    assert states(run) == {"first": "finished", "second": "reused"}


def test_a_damaged_artifact_is_made_again(toy: Stage[Any], run_plan: Execute) -> None:
    first, _ = run_plan(chain(toy))
    (first.artifact("first", "model") / "model.json").write_text("{}")

    second, code = run_plan(chain(toy))

    assert code == 0
    assert states(second) == {"first": "finished", "second": "reused"}
    assert second.status("first").reason == "its artifacts are gone or damaged"


def test_a_finished_run_with_a_damaged_artifact_is_mended_in_place(
    toy: Stage[Any], run_plan: Execute
) -> None:
    run, _ = run_plan(chain(toy))
    (run.artifact("first", "model") / "model.json").unlink()

    run, code = run_plan(chain(toy), run)

    assert code == 0
    assert run.status("first").attempt == 2
    assert run.status("second").attempt == 1


def test_changed_code_runs_again_and_goes_on_from_the_state_of_the_old(
    toy: Stage[Any], run_plan: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = tmp_path / "components"
    shutil.copytree(WORLD / "components", sources)
    monkeypatch.setattr(components, "__path__", [components.__path__[0], str(sources)])
    code_digest._digest.cache_clear()
    run_plan(chain(toy))
    broken, _ = run_plan(chain(toy, fails=1))
    work = sources / "toy" / "work.py"
    work.write_text("# a remark\n" + work.read_text())
    code_digest._digest.cache_clear()

    run, _ = run_plan(chain(toy))
    assert set(states(run).values()) == {"reused"}

    work.write_text(work.read_text() + "CHANGED = 1\n")
    code_digest._digest.cache_clear()

    run, _ = run_plan(chain(toy))
    assert run.status("first").reason == "the code of toy changed"

    mended, code = run_plan(chain(toy, fails=1), broken)
    assert code == 0
    assert mended.status("second").attempt == 2


def test_another_version_of_what_a_step_requires_runs_it_again(
    toy: Stage[Any], run_plan: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"

    def install(number: str) -> None:
        shutil.rmtree(site, ignore_errors=True)
        (site / f"unobtainium-{number}.dist-info").mkdir(parents=True)
        (site / f"unobtainium-{number}.dist-info/METADATA").write_text(f"Version: {number}\n")
        (site / "unobtainium.py").touch()
        monkeypatch.syspath_prepend(site)  # forgets what was there
        version.image.cache_clear()

    plan = chain(toy, needs="unobtainium")
    install("1.0")
    first, _ = run_plan(plan)
    assert "unobtainium 1.0" in read_manifest(first.artifact("second", "metrics")).image
    install("2.0")
    again, _ = run_plan(plan)

    assert states(again) == {"first": "reused", "second": "finished"}
    assert "unobtainium 2.0" in again.status("second").reason


def test_artifacts_are_reused_while_any_run_still_has_them(
    toy: Stage[Any], run_plan: Execute
) -> None:
    first, _ = run_plan(chain(toy))
    second, _ = run_plan(chain(toy))
    subprocess.run(["rm", "-r", first.folder], check=True)

    third, _ = run_plan(chain(toy))

    assert third.status("second").origin == f"{second.id}/second"


def test_a_failed_step_stops_only_what_depends_on_it(toy: Stage[Any], run_plan: Execute) -> None:
    plan = Plan("fork", "digits")
    bad = plan.add(toy, "bad", toy.config(fails=9))
    plan.add(toy, "after_bad", toy.config(), model=bad.output("model"))
    good = plan.add(toy, "good", toy.config())
    plan.add(toy, "after_good", toy.config(seed=1), model=good.output("model"))

    run, code = run_plan(plan)

    assert code == ExitCode.BAD_DATA
    assert run.state == "failed"
    assert states(run) == {
        "bad": "failed",
        "after_bad": "skipped",
        "good": "finished",
        "after_good": "finished",
    }
    assert "image 7.jpg is truncated" in run.status("bad").reason
    assert run.status("after_bad").reason == "bad failed"


def test_every_way_to_fail_has_its_code_and_its_words(toy: Stage[Any], run_plan: Execute) -> None:
    plan = Plan("bad", "digits")
    for how in ("defect", "killed", "silent"):
        plan.add(toy, how, toy.config(fails=9, how=how))

    run, code = run_plan(plan, jobs=1)

    assert code == 1  # the first one's
    statuses = run.statuses()
    assert {how: status.exit_code for how, status in statuses.items()} == {
        "defect": 1,
        "killed": 137,
        "silent": 1,
    }
    assert "RuntimeError: a defect of the toy" in statuses["defect"].reason
    assert "SIGKILL; if nobody sent it, the machine ran out of memory" in statuses["killed"].reason
    assert "its outputs are not whole" in statuses["silent"].reason


def test_a_failed_step_is_tried_again_with_its_state_when_the_run_is_continued(
    toy: Stage[Any], run_plan: Execute
) -> None:
    run, _ = run_plan(chain(toy, fails=1))
    assert run.state == "failed"

    run, code = run_plan(chain(toy, fails=1), run)

    assert code == 0
    assert run.state == "finished"
    assert run.status("second").attempt == 2
    assert run.status("first").attempt == 1


def test_a_many_port_is_left_without_the_inputs_that_failed(
    toy: Stage[Any], run_plan: Execute
) -> None:
    plan = Plan("gather", "digits")
    good = plan.add(toy, "good", toy.config())
    bad = plan.add(toy, "bad", toy.config(fails=1))
    plan.add(
        toy,
        "gather",
        toy.config(),
        others={"a": good.output("metrics"), "b": bad.output("metrics")},
    )

    run, code = run_plan(plan)

    assert code == ExitCode.BAD_DATA
    assert states(run) == {"good": "finished", "bad": "failed", "gather": "finished"}
    assert run.status("gather").left_out == ("others.b",)
    assert read_metrics(run.artifact("gather", "metrics")).details == {"inputs": ["others.a"]}

    run, code = run_plan(plan, run)

    assert code == 0
    assert run.status("gather").left_out == ()
    details = read_metrics(run.artifact("gather", "metrics")).details
    assert details == {"inputs": ["others.a", "others.b"]}


def test_a_many_port_without_any_input_left_is_skipped(toy: Stage[Any], run_plan: Execute) -> None:
    plan = Plan("gather", "digits")
    bad = plan.add(toy, "bad", toy.config(fails=9))
    plan.add(toy, "gather", toy.config(), others={"b": bad.output("metrics")})

    run, _ = run_plan(plan)

    assert states(run) == {"bad": "failed", "gather": "skipped"}


def test_steps_of_the_same_ingredients_run_once(toy: Stage[Any], run_plan: Execute) -> None:
    plan = Plan("twins", "digits")
    for name, seed in (("one", 1), ("two", 2)):
        model = plan.add(toy, f"model_{name}", toy.config(seed=seed)).output("model")
        plan.add(toy, name, toy.config(ticks=5), model=model)

    run, _ = run_plan(plan)

    # Which of the two runs first is the machine's affair.
    assert sorted([run.status("one").state, run.status("two").state]) == ["finished", "reused"]


def test_independent_steps_run_side_by_side_and_share_the_cores(
    toy: Stage[Any], run_plan: Execute
) -> None:
    plan = Plan("pair", "digits")
    plan.add(toy, "one", toy.config(seed=1, ticks=20))
    plan.add(toy, "two", toy.config(seed=2, ticks=20))

    run, _ = run_plan(plan)

    one, two = run.status("one"), run.status("two")
    assert one.ended and two.started and one.ended > two.started
    assert environment(run, "one")["threads"] == "1"

    run, _ = run_plan(chain(toy, seed=9), jobs=1)
    assert environment(run, "second")["threads"] == "2"


def test_the_longest_way_to_the_end_goes_first(toy: Stage[Any], run_plan: Execute) -> None:
    plan = Plan("ways", "digits")
    plan.add(toy, "short", toy.config(seed=1))
    long = plan.add(toy, "long", toy.config(seed=2))
    plan.add(toy, "longer", toy.config(seed=3), model=long.output("model"))

    run, _ = run_plan(plan, jobs=1)

    assert run.status("long").started < run.status("short").started  # type: ignore[operator]


def test_gpus_are_dealt_out_and_never_shared(toy: Stage[Any], run_plan: Execute) -> None:
    plan = Plan("gpus")  # at full scale, where the toy wants two
    for seed in range(3):
        plan.add(toy, f"step{seed}", toy.config(seed=seed, ticks=10))

    run, _ = run_plan(plan, gpus=("3", "5", "6", "7"), jobs=5)

    assert sorted(environment(run, f"step{seed}")["gpus"] for seed in range(2)) == ["3,5", "6,7"]
    starts = [run.status(f"step{seed}").started for seed in range(3)]
    ends = [run.status(f"step{seed}").ended for seed in range(3)]
    assert max(filter(None, starts)) > min(filter(None, ends))


def test_a_step_gets_the_gpus_that_there_are(toy: Stage[Any], run_plan: Execute) -> None:
    plan = Plan("one_gpu")
    plan.add(toy, "step", toy.config())

    run, _ = run_plan(plan, gpus=("4",), jobs=2)

    assert environment(run, "step")["gpus"] == "4"


def test_only_one_runner_executes_a_run(toy: Stage[Any], run_plan: Execute, runs: Path) -> None:
    run = create_run(runs, chain(toy))

    with run.lock(), pytest.raises(UsageError, match=f"executed by process {os.getpid()}"):
        run_plan(run.plan, run)


def test_what_a_step_leaves_behind_is_killed(toy: Stage[Any], run_plan: Execute) -> None:
    plan = Plan("orphan", "digits")
    plan.add(toy, "step", toy.config(orphan=True))

    run, code = run_plan(plan)

    assert code == 0
    events = read_log(run.log("step"))
    left = next(event["pids"] for event in events if event["event"] == "left behind")
    assert len(left) == 2  # one of them in a session of its own
    wait_for(lambda: not any(map(alive, left)))


@pytest.fixture
def slow_run(toy: Stage[Any], runs: Path) -> Iterator[tuple[Run, subprocess.Popen[bytes]]]:
    """A runner in a process of its own, in the middle of a step."""
    plan = Plan("slow", "digits")
    first = plan.add(toy, "first", toy.config(ticks=200))
    plan.add(toy, "second", toy.config(), model=first.output("model"))
    run = create_run(runs, plan)
    program = (
        "import sys; from pathlib import Path; from pipelines.runs.folder import Run;"
        "from pipelines.backends.local.execute import execute;"
        "from pipelines.backends.local.sources import Sources;"
        "from pipelines.backends.local.machine import Machine;"
        "from pipelines.cli.display import PlainDisplay;"
        "run = Run(Path(sys.argv[1]));"
        "sys.exit(execute(run, Sources({}, {}), Machine(2, (), 2), PlainDisplay()))"
    )
    path = os.pathsep.join([str(WORLD), str(ROOT)])
    runner = subprocess.Popen(
        [sys.executable, "-c", program, str(run.folder)], env={**os.environ, "PYTHONPATH": path}
    )
    wait_for(lambda: sum(e["event"] == "progress" for e in read_log(run.log("first"))) >= 3)
    yield run, runner
    runner.kill()
    runner.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_run_and_the_next_attempt_goes_on(
    slow_run: tuple[Run, subprocess.Popen[bytes]], run_plan: Execute, number: signal.Signals
) -> None:
    run, runner = slow_run
    runner.send_signal(number)

    assert runner.wait(SECONDS) == ExitCode.INTERRUPTED
    assert run.state == "interrupted"
    assert states(run) == {"first": "interrupted", "second": "waiting"}

    _, code = run_plan(run.plan, run)

    assert code == 0
    facts = read_manifest(run.artifact("first", "model")).facts
    assert isinstance(facts["resumed_from"], int) and facts["resumed_from"] >= 3


def test_no_step_outlives_a_runner_that_was_killed(
    slow_run: tuple[Run, subprocess.Popen[bytes]], run_plan: Execute
) -> None:
    run, runner = slow_run
    pid = run.status("first").pid
    assert pid
    runner.kill()
    runner.wait()

    wait_for(lambda: not alive(pid))
    assert run.state == "interrupted"
    assert run.status("first").state == "interrupted"

    _, code = run_plan(run.plan, run)
    assert code == 0
    assert read_manifest(run.artifact("first", "model")).facts["resumed_from"] != 0


def test_state_of_other_inputs_is_not_handed_on(toy: Stage[Any], run_plan: Execute) -> None:
    run, _ = run_plan(chain(toy, fails=1))
    (run.folder / "second" / "state" / "ticks").write_text("5")
    plan = json.loads(run.plan_text)
    plan["steps"][0]["config"]["value"] = 9.0
    (run.folder / "plan.json").write_text(json.dumps(plan))

    again, code = run_plan(Plan.from_json(json.dumps(plan)), Run(run.folder))

    assert code == ExitCode.BAD_DATA  # the first attempt on this input fails again
    assert (again.folder / "second" / "state" / "attempts").read_text() == "1"


def alive(pid: int) -> bool:
    """Say whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
