"""Rows and columns of one's own: what is planned of them, what is refused, and what comes out."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import yaml

from components.core.errors import ExitCode
from components.core.metrics import read_metrics
from components.datasets.imagenet import digits as imagenet
from components.datasets.loading import detection_reader
from components.datasets.masks import digits as masks
from components.detection.splits import learnable
from components.rendering.config import DigitsConfig, PicturesConfig
from components.report.results import read_report
from components.vision.backbones import random_backbone
from pipelines.__main__ import main
from pipelines.plan import Existing, Mounted, Plan
from pipelines.recipes import DataColumn, Options, build_plan, load_recipe
from pipelines.recipes.transfer import layouts
from pipelines.runs.find import find_run
from pipelines.tables import filled_cells, report_config

Capture = pytest.CaptureFixture[str]
MINE = {"mine": Existing("/mine.pth", "Model"), "theirs": Existing("/theirs.pth", "Model")}
BIRDS = DataColumn("imagenet", "/data/birds", training=9_000, validation=1_000, classes=20)


def planned(**options: Any) -> Plan:
    chosen: dict[str, Any] = {"own": MINE, "own_columns": {"birds": BIRDS}} | options
    return build_plan(load_recipe("transfer"), Options(**chosen))


def test_features_are_extracted_once_for_all_trials_and_shares_of_a_row() -> None:
    plan = planned(labels=(1.0, 10.0, 100.0), trials=3)
    stages = Counter(step.stage.name for step in plan)
    assert stages == {
        "convert": 2,
        "classification.features": 2,
        "classification.probe": 2 * 3 * 3,
        "classification.inaturalist": 2 * 3 * 3,
        "report": 1,
    }
    cells = filled_cells(plan)
    assert len(cells) == 2 * 3 * 3 * 3
    for key in ("birds__mine__linear_10__2", "birds__mine__knn_10__2"):
        assert cells[key].step == "birds_probe_10_mine_2"
    assert plan.mounts() == ["birds"]


def test_all_rows_are_trained_alike_and_learn_from_the_same_images() -> None:
    plan = planned(labels=(10.0, 100.0), trials=2)
    trainings: dict[str, set[str]] = {}
    for step in plan:
        if step.stage.name in ("classification.inaturalist", "classification.probe"):
            for row in MINE:
                if row in step.name:
                    name = step.name.replace(row, "ROW")
                    trainings.setdefault(name, set()).add(step.config.to_json())
    assert len(trainings) == 8
    assert all(len(configs) == 1 for configs in trainings.values())


def test_a_paper_row_is_made_where_it_is_named_or_given() -> None:
    def rows(**options: Any) -> set[str]:
        return {key.split("__")[1] for key in filled_cells(planned(**options))}

    assert rows() == {"mine", "theirs"}
    assert rows(rows=("random",)) == {"random", "mine", "theirs"}
    given = {"supervised": Existing("/resnet50.pth", "Model")}
    assert rows(existing=given) == {"supervised", "mine", "theirs"}
    assert planned(existing=given).mounts() == ["birds"]
    assert planned(rows=("supervised",)).mounts() == ["birds", "imagenet"]


@pytest.mark.parametrize("layout", layouts())
def test_every_layout_can_be_a_column(layout: str) -> None:
    plan = planned(own_columns={"mine_too": DataColumn(layout, "/data")})
    (table,) = report_config(plan).tables
    assert table.key == "mine_too"
    assert table.compared == "pairs"
    read = {step.inputs["data"] for step in plan if "data" in step.inputs}
    assert read == {Mounted("mine_too")}
    known = {name for _, name in plan.layouts()}
    assert known == {layout}
    miniature = planned(
        scale="digits", own={}, own_columns={"mine_too": DataColumn(layout)}, trials=1
    )
    assert not miniature.mounts()


def test_a_column_in_a_bucket_is_read_from_there() -> None:
    plan = planned(own_columns={"birds": DataColumn("imagenet", "s3://bucket/birds")})
    assert plan.step("birds_features_mine_0").inputs["data"] == Existing(
        "s3://bucket/birds", "Dataset"
    )
    assert plan.mounts() == []


def test_commands_of_empty_cells_are_those_that_fill_them() -> None:
    (table,) = report_config(planned(labels=(10.0, 100.0))).tables
    assert table.fill("mine", "knn_10") == (
        "moco run transfer --column birds=imagenet:/data/birds --labels 10,100 --rows mine "
        "--columns knn_10 --trials 5 --scale full --row mine=/mine.pth"
    )


def test_shares_of_the_labels_are_drawn_as_curves() -> None:
    parts = DataColumn("coco", "/data/parts")
    plan = planned(labels=(1.0, 10.0, 100.0), own_columns={"birds": BIRDS, "parts": parts})
    figures = {figure.key: figure for figure in report_config(plan).figures}
    assert {*figures} == {"birds_linear", "birds_knn", "birds_finetuned", "parts_finetuned"}
    trend = figures["birds_knn"].trends[1]
    assert trend.name == "theirs"
    assert [point.x for point in trend.points] == [1, 10, 100]
    assert {cell for point in trend.points for cell in point.cells} <= {*filled_cells(plan)}
    assert not report_config(planned(labels=(10.0,))).figures


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints, class folders without a split and with one, images beside masks."""
    folder = tmp_path_factory.mktemp("made")
    for number, name in enumerate(("mine", "theirs")):
        torch.manual_seed(number)
        torch.save(torchvision.models.resnet18().state_dict(), folder / f"{name}.pth")
    imagenet.write(DigitsConfig(train_scenes=60, val_scenes=30, pixels=24), folder / "birds")
    shutil.copytree(folder / "birds/train", folder / "alone")
    sizes = PicturesConfig(train=20, val=20, pixels=64)
    masks.write(DigitsConfig(pictures=sizes), folder / "leaves")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder of one's own, in which commands run."""
    for path in made.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.setenv("MOCO_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


ROWS = ["--row", "mine=mine.pth", "--row", "theirs=theirs.pth"]


def test_plan_counts_the_data_and_says_how_long_trainings_are(
    folder: Path, capsys: Capture
) -> None:
    command = ["plan", "transfer", *ROWS, "--trials", "2", "--labels", "80,100"]
    command += ["--column", "birds=imagenet:alone", "--column", "leaves=masks:leaves"]

    assert main(command) == ExitCode.OK
    shown = " ".join(capsys.readouterr().out.split())
    # 49 of 60, as 11 are held out: 100 epochs of 437,513 images, by the root of the ratio.
    assert "classification.inaturalist 4 9,449 epochs, 32 images a step, of 49 images" in shown
    assert "segmentation 4 922 steps of 8 images, of 10 images" in shown

    assert main([*command, "--json"]) == ExitCode.OK
    document = json.loads(capsys.readouterr().out)
    steps = {step["name"]: step for step in document["steps"]}
    assert steps["birds_finetuned_80_mine_0"]["length"].endswith("of 39 images")
    assert steps["birds_finetuned_80_mine_0"]["gpu_hours"] > 0
    assert steps["birds_probe_mine_0"]["length"] is None
    assert document["data"] == ["birds", "leaves"]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ([], 64, "transfer compares encoders on data of your own: --column NAME=LAYOUT:FOLDER"),
        (["--column", "birds"], 64, "expected --column NAME=LAYOUT:PLACE"),
        (["--column", "birds=imagenet"], 64, "say where it is, birds=imagenet:PLACE"),
        (["--column", "birds=imagnet:birds"], 64, "did you mean 'imagenet'?"),
        (["--column", "birds=lvis:birds"], 64, "no column has this layout; there are ade20k,"),
        (["--column", "Birds=imagenet:birds"], 64, "make the name of a column"),
        (["--column", "birds=imagenet:nowhere"], 65, "birds=imagenet:nowhere: there is no such"),
        (["--column", "birds=coco:birds"], 65, "annotations/instances_train2017.json: is missing"),
        (
            ["--column", "a=imagenet:birds", "--column", "a=masks:leaves"],
            64,
            "--column a is given twice",
        ),
        (
            ["--column", "a=imagenet:birds", "--data", "a=birds"],
            64,
            "--column a: --data a is of the same name; rename one",
        ),
        (["--column", "birds=imagenet:birds", "--labels", "5"], 65, "the least share is 16.7 %"),
        (["--column", "birds=imagenet:birds", "--labels", "0,5"], 64, "--labels 0: expected perc"),
        (["--column", "birds=imagenet:birds", "--labels", "all"], 64, "--labels all: expected"),
        (["--column", "imagenet=imagenet:birds", "--rows", "supervised"], 64, "call the column"),
    ],
)
def test_what_cannot_be_is_refused_by_plan(
    folder: Path, options: list[str], code: int, words: str, capsys: Capture
) -> None:
    assert main(["plan", "transfer", *ROWS, *options]) == code
    assert words in capsys.readouterr().err


def test_splits_with_other_classes_are_refused_by_plan(folder: Path, capsys: Capture) -> None:
    shutil.copytree(folder / "birds", folder / "changed")
    shutil.rmtree(folder / "changed/val/n00000003")
    command = ["plan", "transfer", *ROWS, "--column", "birds=imagenet:changed"]
    assert main(command) == ExitCode.BAD_DATA
    assert "val: has other classes than train (1 in train only: n00000003)" in (
        capsys.readouterr().err
    )


def test_an_encoder_without_a_level_is_refused_by_plan(folder: Path, capsys: Capture) -> None:
    whole = torch.load(folder / "mine.pth")
    part = {name: tensor for name, tensor in whole.items() if not name.startswith("layer4")}
    torch.save(part, folder / "part.pth")
    command = ["plan", "transfer", "--row", "mine=part.pth", "--column", "birds=imagenet:birds"]
    assert main(command) == ExitCode.BAD_DATA
    assert "a ResNet without res5 (layer4), from which every head takes features" in (
        capsys.readouterr().err
    )


def test_without_a_row_there_is_nothing_to_measure(folder: Path, capsys: Capture) -> None:
    assert main(["plan", "transfer", "--column", "birds=imagenet:birds"]) == ExitCode.USAGE
    assert "would measure nothing: --row NAME=FILE" in capsys.readouterr().err


def test_the_papers_recipes_take_no_columns(folder: Path, capsys: Capture) -> None:
    command = ["plan", "linear", "--column", "birds=imagenet:birds"]
    assert main(command) == ExitCode.USAGE
    assert "moco run transfer compares encoders on data of your own" in capsys.readouterr().err


def test_a_column_on_a_cluster_is_a_claim_or_a_place_in_a_bucket(folder: Path) -> None:
    command = ["compile", "transfer", "--row", "mine=s3://bucket/mine.pth", "--trials", "1"]
    command += ["--column", "birds=imagenet:claim-of-birds"]
    command += ["--column", "leaves=masks:s3://bucket/leaves"]

    assert main([*command, "-o", "transfer.yaml", "--cluster", "allow_tags=true"]) == ExitCode.OK

    definition = next(yaml.safe_load_all((folder / "transfer.yaml").read_text()))
    parameters = definition["root"]["inputDefinitions"]["parameters"]
    assert parameters["pvc_birds"]["defaultValue"] == "claim-of-birds"
    assert parameters["uri_leaves_finetuned_mine_0_data"]["defaultValue"] == "s3://bucket/leaves"
    assert "pvc_leaves" not in parameters


TINY = [
    *("--set", "digits.train_scenes=192", "--set", "digits.val_scenes=30"),
    *("--set", "digits.pictures.train=40", "--set", "digits.pictures.val=20"),
]


def test_ones_own_encoders_are_compared_as_a_user_runs_it(folder: Path, capsys: Capture) -> None:
    torch.save(random_backbone("resnet_digits", 7).state_dict(), folder / "small.pth")
    command = ["run", "transfer", "--scale", "digits", *TINY, "--row", "mine=small.pth"]
    command += ["--rows", "random", "--columns", "linear,knn", "--column", "birds=imagenet"]
    command += ["--trials", "2"]

    assert main(command) == ExitCode.OK

    shown = capsys.readouterr().out
    assert "Transfer to birds" in shown
    run = find_run("transfer", folder / "runs")
    (table,) = read_report(run.artifact("report", "report")).tables
    assert [row.key for row in table.rows] == ["random", "mine"]
    assert {cell.state for row in table.rows for cell in row.cells} == {"measured"}
    assert {comparison.trials for comparison in table.comparisons} == {2}
    assert len(table.comparisons) == 2
    assert main(["explain", run.id, "birds/mine/linear/0"]) == ExitCode.OK
    assert "classification.features" in capsys.readouterr().out


@pytest.mark.slow
def test_every_kind_of_column_learns_from_its_share(folder: Path) -> None:
    command = ["run", "transfer", "--scale", "digits", *TINY, "--rows", "random", "--trials", "1"]
    command += ["--labels", "60", "--columns", "finetuned_60"]
    command += [o for n in ("imagenet", "coco", "masks") for o in ("--column", f"{n}_too={n}")]
    command += ["--set", "classification.inaturalist.epochs=1"]
    command += ["--set", "detection.coco.iterations=2", "--set", "segmentation.iterations=2"]

    assert main(command) == ExitCode.OK

    run = find_run("transfer", folder / "runs")
    counts = {
        name: read_metrics(run.artifact(f"{name}_too_finetuned_60_random_0", "metrics")).details
        for name in ("imagenet", "coco", "masks")
    }
    assert counts["imagenet"]["training_images"] == round(0.6 * 192)
    assert counts["masks"]["training_images"] == round(0.6 * 20)
    whole = detection_reader("coco").read_both(run.artifact("digits", "coco"))[0]
    shown = len(learnable(detection_reader("coco"), whole))
    assert counts["coco"]["training_images_with_instances"] == round(0.6 * shown)
