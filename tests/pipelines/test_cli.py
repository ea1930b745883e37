"""The command line as a person uses it: what is read, refused, and imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from components.core.errors import ExitCode
from pipelines.__main__ import COMMANDS, main
from pipelines.backends.local.machine import Machine
from tests.pipelines.conftest import ROOT

pytestmark = pytest.mark.usefixtures("world", "runs")

Capture = pytest.CaptureFixture[str]


def refused(arguments: list[str], capsys: Capture) -> tuple[int, str]:
    """Run a command that must be refused; return exit code and message."""
    code = main(arguments)
    message = capsys.readouterr().err
    assert message.startswith("moco: ")
    assert "Traceback" not in message
    return code, message.removeprefix("moco: ").strip()


def imported_by(*arguments: str) -> set[str]:
    """Return the modules that a command has imported when it ends."""
    program = (
        "import sys; from pipelines.__main__ import main; "
        f"code = main({list(arguments)!r}); print('\\nMODULES', *sys.modules); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.rpartition("MODULES ")[2].split())


def test_help_lists_every_command_and_the_exit_codes(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(f" {name} " in text for name in COMMANDS)
    assert all(f"{code.value} " in text for code in ExitCode)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: Capture) -> None:
    assert main([command, "--help"]) == 0
    assert f"moco {command}" in capsys.readouterr().out


def test_help_imports_nothing_that_it_does_not_use() -> None:
    modules = imported_by("--help")

    assert not modules & {"torch", "numpy", "kfp", "pydantic", "structlog", "minio", "rich.live"}
    assert not any(name.startswith(("pipelines.cli", "pipelines.plan")) for name in modules)


@pytest.mark.parametrize("command", ["list", "plan linear --scale digits", "status"])
def test_nothing_that_looks_imports_torch_or_kfp(command: str) -> None:
    assert not imported_by(*command.split()) & {"torch", "numpy", "kfp", "minio", "sklearn"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["rum"], 64, 'Unknown command "rum". Did you mean "run"?'),
        (["run"], 64, "RECIPE requires an argument. See `moco run --help`"),
        (["run", "toyz"], 64, "no recipe is called 'toyz'; did you mean 'toys'?"),
        (["run", "toys", "--scal", "digits"], 64, "Did you mean --scale?"),
        (["run", "toys", "--scale", "digit"], 64, 'Choose from: "full", "fit", "digits"'),
        (["plan", "toys", "--trials", "0"], 64, "--trials 0: at least one trial"),
        (["plan", "toys", "--trials", "two"], 64, "--trials"),
        (["plan", "toys", "--rows", ","], 64, "--rows is empty"),
        (["plan", "toys", "--columns", ","], 64, "--columns is empty"),
        (["plan", "toys", "--columns", "toi"], 64, "no column is called 'toi'"),
        (["plan", "toys", "--set", "toy.value"], 64, "expected --set TARGET.FIELD=VALUE"),
        (["plan", "toys", "--set", "toy.valu=1"], 78, "did you mean 'value'?"),
        (["plan", "toys", "--set", "toy.value=x"], 78, "should be a valid number"),
        (["plan", "toys", "--set", "toi.value=1"], 78, "did you mean 'toy'?"),
        (["plan", "toys", "--init", "random"], 64, "--init random: expected --init ROW=PATH"),
        (["plan", "toys", "--init", "random=/no/such.pth"], 65, "/no/such.pth: there is no such"),
        (["plan", "toys", "--init", "randon=/x"], 64, "no row is called that; did you mean 'ran"),
        (["plan", "toys", "--init", "mine=/x"], 64, "--row mine=PATH makes a row of its own"),
        (["plan", "linear", "--row", "random=/x"], 64, "--init random=PATH takes a checkpoint"),
        (["plan", "linear", "--row", "My-own=/x"], 64, "small letters, digits and underscores"),
        (["plan", "mechanisms", "--row", "mine=/x"], 64, "no table of mechanisms compares"),
        (["plan", "toys", "--data", "picture=/x"], 64, "did you mean 'pictures'?"),
        (["plan", "toys", "--data", "pictures=/no/such"], 65, "there is no such folder"),
        (["run", "toys", "--jobs", "0", "--scale", "digits"], 64, "at least one step at a time"),
        (["status", "toys"], 64, "there is no run in"),
        (["logs", "toys"], 64, "`moco run RECIPE` makes one"),
        (["report"], 64, "name at least one run"),
        (["explain", "toys"], 64, "CELL requires an argument"),
        (["data", "check", "imagenett", "."], 64, "did you mean 'imagenet'?"),
        (["data", "check", "imagenet", "/no/such"], 65, "there is no such file or folder"),
        (["compile", "toys"], 64, "--output requires an argument"),
        (["compile", "toys", "-o", "x.yaml", "--cluster", "usr=5"], 78, "did you mean 'user'?"),
        (["compile", "toys", "-o", "x.yaml", "--cluster", "@none"], 78, "cannot read"),
    ],
)
def test_bad_input_is_refused_with_its_code_and_the_way_out(
    arguments: list[str], code: int, words: str, capsys: Capture
) -> None:
    found, message = refused(arguments, capsys)

    assert words in message
    assert found == code


def test_full_scale_without_gpus_is_refused_with_two_ways_out(capsys: Capture, runs: Path) -> None:
    code, message = refused(["run", "toys"], capsys)

    assert code == ExitCode.USAGE
    assert "--scale digits" in message
    assert "moco compile toys" in message
    assert not runs.exists()


def test_missing_data_sets_are_all_named_at_once(
    capsys: Capture, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pipelines.backends.local.backend.this_machine", lambda _: Machine(2, ("0",), 2)
    )

    code, message = refused(["run", "toys"], capsys)

    assert code == ExitCode.USAGE
    assert message == "the plan reads data sets that were not given: add --data pictures=FOLDER"


def test_a_folder_of_runs_that_cannot_be_made_is_refused(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MOCO_RUNS", str(tmp_path / "file" / "runs"))

    code, message = refused(["run", "toys", "--scale", "digits"], capsys)

    assert code == ExitCode.NO_PERMISSION
    assert "MOCO_RUNS names another one" in message


def test_a_traceback_is_shown_when_asked_for(capsys: Capture) -> None:
    assert main(["run", "toyz", "--traceback"]) == ExitCode.USAGE
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.rstrip().splitlines()[-1].startswith("moco: no recipe is called")


def test_a_defect_shows_its_traceback_without_secrets(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-in-the-mine")

    def broken() -> None:
        raise RuntimeError("canary-in-the-mine")

    monkeypatch.setattr("pipelines.cli.status.runs_folder", broken)

    assert main(["status"]) == ExitCode.FAILURE
    shown = capsys.readouterr().err
    assert "RuntimeError" in shown
    assert "canary" not in shown


def test_list_names_recipes_tables_rows_and_what_cannot_be_had(capsys: Capture) -> None:
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    assert "toys: Toys, for the tests." in text
    assert "rows: random, moco_in1m" in text
    assert "not moco_ig1b: IG-1B is not public" in text

    assert main(["list", "--json"]) == 0
    recipes = {recipe["name"]: recipe for recipe in json.loads(capsys.readouterr().out)}
    assert recipes["toys"]["tables"][0]["trials"] == 2
    assert "appendix" in recipes


def test_plan_says_what_runs_which_cells_and_what_is_missing(capsys: Capture, runs: Path) -> None:
    assert main(["plan", "toys", "--trials", "2"]) == 0
    text = capsys.readouterr().out

    assert "toy has not run here before" not in text  # the data set is not given: nobody can know
    assert "the data set pictures is not given" in text
    assert "reads what measure_moco_in1m_0 and 3 more will make" in text
    assert "Fills 4 cells of Appendix Z: random, moco_in1m." in text
    assert "add the data sets: --data pictures=FOLDER" in text
    assert not runs.exists()


def test_plan_as_json_has_the_same(capsys: Capture) -> None:
    assert main(["plan", "toys", "--scale", "digits", "--rows", "random", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)

    assert [step["name"] for step in planned["steps"]] == [
        "make_random",
        "measure_random_0",
        "report",
    ]
    assert planned["cells"] == ["toys__random__short__0"]
    assert planned["steps"][0]["why"] == "toy has not run here before"


def test_compile_writes_the_pipeline(capsys: Capture, tmp_path: Path) -> None:
    file = tmp_path / "linear.yaml"
    arguments = ["compile", "linear", "--scale", "digits", "-o", str(file)]

    assert main([*arguments, "--cluster", "user=2000"]) == 0

    assert "10 steps of linear at digits scale" in capsys.readouterr().out
    assert "moco-transfer/recipe" in file.read_text()


def test_data_check_lists_faults_with_their_files(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()

    assert main(["data", "check", "imagenet", str(tmp_path)]) == ExitCode.BAD_DATA
    assert "fault: val: the folder is missing" in capsys.readouterr().out

    assert main(["data", "check", "imagenet", str(tmp_path), "--json"]) == ExitCode.BAD_DATA
    assert "val" in {fault["file"] for fault in json.loads(capsys.readouterr().out)["faults"]}
