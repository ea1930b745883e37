"""`moco run` and what is asked of runs afterwards, on the recipe of toys."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.core.errors import ExitCode
from components.report.results import read_report
from pipelines.__main__ import main
from pipelines.backends.local.execute import _Execution
from pipelines.runs.find import find_run
from pipelines.runs.folder import Run, all_runs

Capture = pytest.CaptureFixture[str]
RUN = ["run", "toys", "--scale", "digits", "--trials", "2"]


@pytest.fixture(scope="module")
def finished(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of runs in which the recipe has run once."""
    folder = tmp_path_factory.mktemp("finished") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOCO_RUNS", str(folder))
        assert main(RUN) == 0
    yield folder


@pytest.fixture
def runs(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, the one that commands use."""
    folder = tmp_path / "runs"
    shutil.copytree(finished, folder)
    monkeypatch.setenv("MOCO_RUNS", str(folder))
    return folder


def states(run: Run) -> dict[str, str]:
    return {name: status.state for name, status in run.statuses().items()}


def values(run: Run, row: int = 0) -> list[float]:
    """Return what a report holds for a row of its table, by trial."""
    report = read_report(run.artifact("report", "report"))
    return [trial.values["value"] for trial in report.tables[0].rows[row].cells[0].trials]


def test_run_ends_with_the_table_the_report_and_the_way_on(runs: Path, capsys: Capture) -> None:
    assert main(RUN) == 0
    shown = capsys.readouterr()

    assert "10.0 ± 0.0   2 of 2" in shown.out
    run = find_run("toys", runs)
    assert f"Report: {run.artifact('report', 'report')}/index.html" in shown.out
    assert f"moco explain {run.id} toys/random/short/0" in shown.out
    assert "7 of 7 steps done" in shown.err
    assert set(states(run).values()) == {"reused"}
    assert run.artifact("report", "html", "HTML").is_file()


def test_plan_says_what_is_reused_and_what_changed(runs: Path, capsys: Capture) -> None:
    assert main(["plan", *RUN[1:], "--set", "measure_random_0.value=12", "--json"]) == 0
    steps = {step["name"]: step for step in json.loads(capsys.readouterr().out)["steps"]}

    origin = find_run("toys", runs).id
    assert steps["make_random"]["action"] == "reuse"
    assert steps["make_random"]["why"] == f"{origin}/make_random"
    assert steps["measure_random_0"]["why"] == "config.value was 10.0, is 12.0"
    assert steps["measure_random_0"]["seconds"] > 0
    assert steps["report"]["why"] == "reads what measure_random_0 will make"


def test_status_lists_runs_and_steps(runs: Path, capsys: Capture) -> None:
    run = find_run("toys", runs)

    assert main(["status"]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line.split()[:4] == [run.id, "digits", "finished", "7/7"]

    assert main(["status", "toys"]) == 0
    assert "✓  measure_random_0     finished" in capsys.readouterr().out

    assert main(["status", "toys", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"]["report"]["state"] == "finished"


def test_a_failed_run_says_why_and_the_same_command_mends_it(runs: Path, capsys: Capture) -> None:
    broken = [*RUN, "--set", "measure_random_1.fails=1"]

    assert main(broken) == ExitCode.BAD_DATA
    shown = capsys.readouterr()
    run = find_run("toys", runs)
    assert "image 7.jpg is truncated; remove it" in shown.err
    assert f"moco logs {run.id} measure_random_1" in shown.err
    assert "Without 1 cell whose steps did not finish." in shown.out
    assert values(run) == [10.0]

    assert main(["status", run.id]) == 0
    shown = capsys.readouterr()
    assert "exit code 65" in shown.out
    assert "without 1 input: metrics.toys__random__short__1" in shown.out

    assert main(broken) == 0
    assert f"continuing {run.id}, 6 of 7 steps done" in capsys.readouterr().err
    assert find_run("toys", runs) == run
    assert values(run) == [10.0, 10.0]


def test_a_package_that_a_step_needs_is_missed_before_any_step_runs(
    runs: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = all_runs(runs)
    needing = [*RUN, "--set", "measure_random_1.needs=unobtainium"]

    assert main(needing) == ExitCode.BAD_CONFIG
    told = capsys.readouterr().err
    assert "1 step (measure_random_1 first) cannot run without unobtainium" in told
    assert "no shop sells it" in told
    assert all_runs(runs) == before
    assert main(["plan", *needing[1:]]) == 0  # the image of a step on a cluster may have it

    with monkeypatch.context() as patch:
        (tmp_path / "unobtainium.py").touch()
        patch.syspath_prepend(tmp_path)
        patch.setattr(_Execution, "_fork_server", lambda _: None)  # its path is that of before
        assert main(needing) == 0
    assert main(["rerun", "toys", "measure_random_1"]) == ExitCode.BAD_CONFIG
    assert main(["rerun", "toys", "measure_random_0"]) == 0


def test_new_begins_another_run(runs: Path) -> None:
    broken = [*RUN, "--rows", "random", "--set", "measure_random_1.fails=9"]
    assert main(broken) == ExitCode.BAD_DATA
    assert main([*broken, "--new"]) == ExitCode.BAD_DATA
    assert len(all_runs(runs)) == 3


def test_logs_of_a_step_of_all_and_of_what_was_reused(runs: Path, capsys: Capture) -> None:
    run = find_run("toys", runs)

    assert main(["logs", run.id, "make_random"]) == 0
    assert "environment threads=" in capsys.readouterr().out

    assert main(["logs", run.id, "--follow"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("make_random         | ") for line in lines)

    assert main(RUN) == 0
    capsys.readouterr()
    assert main(["logs", "toys", "make_random"]) == 0
    shown = capsys.readouterr()
    assert "environment threads=" in shown.out
    assert f"make_random was reused; this is what it said in {run.id}" in shown.err

    assert main(["logs", run.id, "make_randm"]) == ExitCode.USAGE
    assert "did you mean 'make_random'?" in capsys.readouterr().err


def test_rerun_executes_one_step_on_the_same_inputs(runs: Path, capsys: Capture) -> None:
    origin = find_run("toys", runs)

    assert main(["rerun", "toys", "measure_random_0"]) == 0

    again = all_runs(runs)[0]
    assert states(again) == {"measure_random_0": "finished"}
    parent = again.record.parent
    assert parent and (parent.run, parent.steps) == (origin.id, ("measure_random_0",))
    assert f"moco report {origin.id} {again.id}" in capsys.readouterr().out

    assert main(["status"]) == 0
    assert f"rerun of {origin.id}" in capsys.readouterr().out


def test_rerun_downstream_executes_all_after_it(runs: Path) -> None:
    assert main(["rerun", "toys", "make_random", "--downstream"]) == 0

    again = all_runs(runs)[0]
    assert states(again) == dict.fromkeys(
        ["make_random", "measure_random_0", "measure_random_1", "report"], "finished"
    )
    assert len(values(again, row=1)) == 2  # the other row is that of the old run


def test_failed_steps_are_tried_again_in_the_same_run(runs: Path, capsys: Capture) -> None:
    assert main([*RUN, "--set", "measure_random_1.fails=1"]) == ExitCode.BAD_DATA
    broken = find_run("toys", runs)

    assert main(["rerun", broken.id, "--failed"]) == 0
    assert broken.status("measure_random_1").attempt == 2
    assert values(broken) == [10.0, 10.0]
    capsys.readouterr()
    assert main(["rerun", broken.id, "measure_random_1", "--failed"]) == ExitCode.USAGE
    assert main(["rerun", broken.id]) == ExitCode.USAGE
    assert "--failed" in capsys.readouterr().err


def test_a_rerun_goes_on_with_the_checkpoints_of_the_attempt_before(
    runs: Path, capsys: Capture
) -> None:
    assert main([*RUN, "--set", "measure_random_1.fails=1"]) == ExitCode.BAD_DATA
    broken = find_run("toys", runs)

    # The toy fails once for each state: with that of the failed attempt it goes well.
    assert main(["rerun", broken.id, "measure_random_1"]) == ExitCode.BAD_DATA
    assert main(["rerun", broken.id, "measure_random_1", "--continue"]) == 0
    again = all_runs(runs)[0]
    assert again.record.parent and "measure_random_1" in again.record.parent.states

    capsys.readouterr()
    assert main(["rerun", broken.id, "measure_random_0", "--continue"]) == ExitCode.USAGE
    assert "keeps no checkpoint" in capsys.readouterr().err


def test_checkpoints_of_other_inputs_are_not_handed_over(runs: Path, capsys: Capture) -> None:
    assert main([*RUN, "--set", "measure_random_1.fails=1"]) == ExitCode.BAD_DATA
    broken = find_run("toys", runs)
    before = len(all_runs(runs))
    status = broken.status("measure_random_1")
    broken.write_status("measure_random_1", status.model_copy(update={"state_key": "another"}))

    code = main(["rerun", broken.id, "measure_random_1", "--continue"])

    assert code == ExitCode.BAD_DATA
    assert "its config or its inputs are not the same" in capsys.readouterr().err
    assert len(all_runs(runs)) == before


def test_rerun_needs_what_is_upstream(runs: Path, capsys: Capture) -> None:
    assert main([*RUN, "--set", "make_random.fails=9"]) == ExitCode.BAD_DATA
    capsys.readouterr()

    assert main(["rerun", "toys", "measure_random_0"]) == ExitCode.BAD_DATA

    message = capsys.readouterr().err
    assert "measure_random_0 reads model of make_random, which is failed" in message
    assert "make_random --downstream` makes it first" in message


def test_explain_walks_from_the_number_to_the_data(runs: Path, capsys: Capture) -> None:
    assert main(["explain", "toys", "toys/random/short"]) == 0
    text = capsys.readouterr().out

    assert "value: 10   (published 1.5)" in text
    assert "toy.metrics  SHA-256" in text
    assert "  model:\n    toy.model  SHA-256" in text
    assert text.count("image  ") == 2

    assert main(["explain", "toys", "toys__random__short__1", "--json"]) == 0
    explained = json.loads(capsys.readouterr().out)
    assert explained["manifest"]["inputs"]["model"]["config"]["value"] == 1.0


@pytest.mark.parametrize(
    ("cell", "code", "words"),
    [
        ("toys/randm/short", 64, "the nearest: toys/random/short/"),
        ("toys/random/short/7", 64, "has no cell 'toys/random/short/7'"),
    ],
)
def test_a_cell_of_nobody_is_refused_with_the_nearest(
    runs: Path, capsys: Capture, cell: str, code: int, words: str
) -> None:
    assert main(["explain", "toys", cell]) == code
    assert words in capsys.readouterr().err


def test_explain_refuses_a_number_whose_artifact_was_changed(runs: Path, capsys: Capture) -> None:
    metrics = find_run("toys", runs).artifact("measure_random_0", "metrics") / "metrics.json"
    metrics.write_text(metrics.read_text().replace("10.0", "99.0"))

    assert main(["explain", "toys", "toys/random/short"]) == ExitCode.BAD_DATA
    assert "does not match its manifest" in capsys.readouterr().err


def test_report_over_runs_counts_a_trial_once_and_others_as_further_ones(
    runs: Path, tmp_path: Path, capsys: Capture
) -> None:
    first = find_run("toys", runs).id
    assert main(["rerun", first, "measure_random_0"]) == 0
    rerun = all_runs(runs)[0].id
    other = ["run", "toys", "--scale", "digits", "--rows", "random"]
    assert main([*other, "--set", "measure_random_0.value=16", "--set", "toy.seed=5"]) == 0
    second = find_run("toys", runs).id
    capsys.readouterr()

    assert main(["report", first, rerun, second, "-o", str(tmp_path / "report")]) == 0

    merged = find_run("report", runs)
    assert values(merged) == [10.0, 10.0, 16.0]
    assert values(merged, row=1) == [20.0, 20.0]
    assert (tmp_path / "report" / "index.html").is_file()
    shown = capsys.readouterr().out
    assert "3 of 3" in shown

    assert main(["explain", "report", "toys/random/short/2"]) == 0
    assert "value: 16" in capsys.readouterr().out


def test_report_does_not_overwrite(runs: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()

    code = main(["report", "toys", "-o", str(tmp_path / "mine")])

    assert code == ExitCode.NO_PERMISSION
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
