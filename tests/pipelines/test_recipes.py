"""Every recipe at every scale: what it plans, and what a user can change of it."""

import shlex

import pytest

from components.core.dataset import datasets
from components.core.errors import ConfigError, UsageError
from components.core.stage import load_stage
from components.pretrain import ig1b
from pipelines.plan import Existing, Mounted, Output, Plan
from pipelines.recipes import Options, ScaleName, Setting, build_plan, load_recipe, recipe_names
from pipelines.recipes._shared import IG1B
from pipelines.tables import filled_cells, report_config
from tests.detection.making import PRESETS
from tests.pipelines.golden import options_of

SCALES: tuple[ScaleName, ...] = ("full", "digits")


def plan(name: str, **options: object) -> Plan:
    return build_plan(load_recipe(name), Options(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", recipe_names())
def test_a_plan_reads_back_and_fills_every_cell_that_can_be_had(
    name: str, scale: ScaleName
) -> None:
    built = plan(name, scale=scale, **options_of(name, scale))
    assert Plan.from_json(built.to_json()).to_json() == built.to_json()
    for table in report_config(built).tables:
        for row in table.rows:
            keys = {key for column in table.columns for key in table.cells(row.key, column.key)}
            filled = keys & set(filled_cells(built))
            assert filled == (set() if row.unobtainable or row.on_request else keys)
    assert bool(built.mounts()) == (scale == "full")


def test_the_appendix_shares_data_and_trainings() -> None:
    built = plan("appendix", scale="digits")
    stages = [step.stage.name for step in built]
    assert stages.count("digits") == 2  # the tables', and the ablation's with coloured grounds
    assert stages.count("report") == 1
    assert stages.count("pretrain") == 3  # MoCo, and the two of the ablation
    readers = {step.name for step in built if "digits_on_colours" in step.upstream}
    assert readers == {"pretrain_shuffled_0", "pretrain_plain_0"}
    # Training from scratch is the supervised baseline and Appendix A.7's first row.
    cells = filled_cells(built)
    assert cells["imagenet__random__imagenet__0"].step == "supervised"
    backbone = built.step("linear_supervised_0").inputs["backbone"]
    assert isinstance(backbone, Output)
    assert built.step(backbone.step).upstream == {"supervised"}


def test_detectors_are_trained_as_the_presets_say() -> None:
    steps = [step for step in plan("appendix") if step.stage.name.startswith("detection.")]
    trained = {step.config.derive(seed=0).to_json() for step in steps}
    presets = {name: config.to_json() for name, config in PRESETS.items()}
    assert trained == set(presets.values()) - {presets["densepose_deeplab"]}


def test_published_numbers_are_the_papers() -> None:
    tables = {table.key: table for table in report_config(plan("appendix")).tables}
    inaturalist = {cell.row: cell.values for cell in tables["inaturalist"].published}
    assert inaturalist == {
        "random": (61.8,),
        "supervised": (66.1,),
        "moco_in1m": (65.6,),
        "moco_ig1b": (65.8,),
    }
    imagenet = {cell.row: cell.values for cell in tables["imagenet"].published}
    assert imagenet == {"random": (76.5,), "moco_in1m": (77.0,), "moco_ig1b": (77.3,)}
    assert [cell.values[0] for cell in tables["linear"].published] == [60.6, 63.9, 65.4, 68.6]


def test_larger_encoders_are_pretrained_where_they_are_asked_for() -> None:
    built = plan("linear", rows=("random", "moco_rx50"))
    assert set(filled_cells(built)) == {
        f"linear__{r}__imagenet__0" for r in ("random", "moco_rx50")
    }
    config = built.step("pretrain_moco_rx50").config.model_dump()
    paper = plan("linear").step("pretrain_moco_in1m").config.model_dump()
    assert config == {**paper, "architecture": "resnext50_32x8d"}
    own = plan("linear", existing={"moco_r50w4": Existing("w4.pth", "Model")})
    assert "linear__moco_r50w4__imagenet__0" in filled_cells(own)
    assert "pretrain_moco_r50w4" not in {step.name for step in own}
    narrow = plan("linear", rows=("random",), existing={"moco_in1m": Existing("m.pth", "Model")})
    assert set(filled_cells(narrow)) == {"linear__random__imagenet__0"}
    with pytest.raises(UsageError, match="no row is called 'moco_rx50'"):
        plan("linear", scale="digits", rows=("moco_rx50",))


def test_a_pretraining_on_images_of_ones_own_needs_nothing_else() -> None:
    alone = plan("pretrain", data=("images",))
    assert alone.mounts() == ["images"]
    config = alone.step("pretrain_moco").config.model_dump()
    assert (config["data"], config["knn"]) == ("images", None)
    (table,) = report_config(alone).tables
    assert [metric.key for metric in table.metrics] == ["pretext_accuracy"]
    assert "--columns images" in table.fill("moco", "images")
    watched = plan("pretrain", data=("images", "imagenet"))
    assert watched.mounts() == ["imagenet", "images"]
    assert watched.step("pretrain_moco").inputs["monitor"] == Mounted("imagenet")
    compiled = plan("pretrain", columns=("images",))
    assert compiled.to_json() == alone.to_json()
    assert plan("pretrain", data=("imagenet",)).to_json() == plan("pretrain").to_json()
    assert not plan("pretrain", scale="digits", columns=("images",)).mounts()


def test_pretrainings_fit_the_images_that_there_are() -> None:
    fitted = plan("linear", data=("imagenet",), sizes={"imagenet": 12_000})
    config = fitted.step("pretrain_moco_in1m").config.model_dump()
    assert (config["negatives"], config["epochs"]) == (4096, 1600)
    chosen = plan(
        "linear", sizes={"imagenet": 12_000}, settings=(Setting("pretrain", "epochs", "3"),)
    )
    assert chosen.step("pretrain_moco_in1m").config.model_dump()["epochs"] == 3


def test_ablations_of_section_4_1_change_one_thing_at_a_time() -> None:
    paper = plan("linear").step("pretrain_moco_in1m").config.model_dump()
    steps = plan("momentum")
    assert {
        step.config.model_dump()["key_momentum"]: {
            key: value
            for key, value in step.config.model_dump().items()
            if value != paper[key] and key != "key_momentum"
        }
        for step in steps
        if step.stage.name == "pretrain"
    } == {key: {"negatives": 4096} for key in (0.0, 0.9, 0.99, 0.999, 0.9999)}
    small = [
        step.config.model_dump()["key_momentum"]
        for step in plan("momentum", scale="digits")
        if step.stage.name == "pretrain"
    ]
    assert small == [0.0, 0.9, 0.99, 0.999, 0.9999]
    queue = plan("queue")
    assert len(filled_cells(queue)) == 15
    assert queue.step("pretrain_moco_in1m").config.model_dump() == paper
    assert queue.step("pretrain_end_to_end_k512").config.model_dump()["batch_size"] == 512
    assert queue.step("pretrain_memory_bank_k4096").config.model_dump()["negatives"] == 4096
    narrow = plan("queue", columns=("k16384",), rows=("moco",))
    assert set(filled_cells(narrow)) == {"queue_beyond__moco__k16384__0"}


def test_published_detection_numbers_are_the_papers() -> None:
    tables = {table.key: table for table in report_config(plan("appendix")).tables}

    def numbers(table: str, row: str, column: str) -> tuple[float | None, ...]:
        (found,) = (
            one.values for one in tables[table].published if (one.row, one.column) == (row, column)
        )
        return found

    assert numbers("voc", "moco_in1m", "c4") == (81.5, 55.9, 62.6)
    assert numbers("voc", "random", "dc5") == (64.4, 37.9, 38.6)
    assert numbers("coco_fpn", "supervised", "1x") == (38.9, 59.6, 42.7, 35.4, 56.5, 38.1)
    assert numbers("coco_fpn", "moco_ig1b", "6x") == (42.8, 63.2, 47.0, 38.7, 60.5, 41.3)
    assert numbers("coco_c4", "moco_in1m", "2x") == (40.7, 60.5, 44.1, 35.4, 57.3, 37.6)
    assert numbers("keypoints", "supervised", "2x") == (65.8, 86.9, 71.9)
    assert numbers("densepose", "moco_in1m", "s1x") == (50.1, 86.8, 53.9)
    assert numbers("lvis", "supervised_frozen", "2x") == (24.4, 37.8, 25.8)
    assert numbers("cityscapes", "moco_in1m", "fine") == (32.3, 59.3)
    assert numbers("segmentation", "moco_ig1b", "cityscapes") == (75.5,)
    for table in tables.values():
        assert len(table.published) <= len(table.rows) * len(table.columns)


@pytest.mark.parametrize("name", ["voc", "coco_fpn", "lvis", "segmentation"])
def test_only_the_chosen_columns_are_planned_and_printed(name: str) -> None:
    (table,) = report_config(plan(name)).tables
    column = table.columns[-1].key
    narrow = plan(name, columns=(column,), rows=("moco_in1m",))
    (chosen,) = report_config(narrow).tables
    assert [one.key for one in chosen.columns] == [column]
    assert {one.column for one in chosen.published} == {column}
    assert {key.split("__")[2] for key in filled_cells(narrow)} == {column}
    assert f"--columns {column}" in chosen.fill("moco_in1m", column)


def test_a_frozen_row_starts_from_the_supervised_backbone() -> None:
    built = plan("lvis", scale="digits")
    frozen, tuned = (
        built.step(filled_cells(built)[f"lvis__{row}__1x__0"].step)
        for row in ("supervised_frozen", "supervised")
    )
    assert frozen.inputs == tuned.inputs
    assert frozen.config.model_dump()["model"]["backbone_norm"] == "frozen"
    assert tuned.config.model_dump()["model"]["backbone_norm"] == "tuned"


def test_a_checkpoint_that_exists_takes_the_place_of_a_pretraining() -> None:
    file = Existing("moco_v1_200ep_pretrain.pth.tar", "Model")
    built = plan("linear", rows=("moco_in1m",), existing={"moco_in1m": file})
    assert "pretrain" not in {step.stage.name for step in built}
    assert built.step("convert_moco_in1m").inputs["checkpoint"] == file


def test_somebodys_own_checkpoint_is_one_more_row_and_ig1b_can_be_brought() -> None:
    built = plan(
        "inaturalist",
        existing={"moco_ig1b": Existing("theirs.pth", "Model")},
        own={"mine": Existing("mine.pth", "Model")},
    )
    rows = {row.key: row for row in report_config(built).tables[0].rows}
    assert rows["mine"].unobtainable is None
    assert rows["moco_ig1b"].unobtainable is None
    assert {"inaturalist_mine_0", "inaturalist_moco_ig1b_0"} <= set(built.steps)
    table = report_config(built).tables[0]
    assert table.fill("mine", "accuracy").endswith(" --row mine=mine.pth")
    assert table.fill("moco_ig1b", "accuracy").endswith(" --init moco_ig1b=theirs.pth")


def test_ig1b_is_pretrained_on_where_somebody_has_a_billion_images() -> None:
    without = report_config(plan("inaturalist")).tables[0]
    assert "--data ig1b=FOLDER" in (without.rows[-1].unobtainable or "")
    built = plan("inaturalist", data=("inaturalist", "imagenet", IG1B))
    assert built.mounts() == ["ig1b", "imagenet", "inaturalist"]
    assert built.step("pretrain_moco_ig1b").config == ig1b()
    assert "inaturalist__moco_ig1b__inaturalist__0" in filled_cells(built)
    assert plan("inaturalist", rows=("moco_ig1b",)).mounts() == ["ig1b", "inaturalist"]
    # Their own checkpoint goes before images.
    brought = {"moco_ig1b": Existing("theirs.pth", "Model")}
    assert "ig1b" not in plan("inaturalist", data=(IG1B,), existing=brought).mounts()

    small = plan("inaturalist", scale="digits", rows=("moco_ig1b",))
    assert not small.mounts()
    assert small.step("pretrain_moco_ig1b").config.model_dump()["iterations"] == 786

    alone = plan("pretrain", data=(IG1B, "imagenet"))
    step = alone.step("pretrain_moco_ig1b")
    assert step.inputs == {"data": Mounted("ig1b"), "monitor": Mounted("imagenet")}
    assert step.config.model_dump()["knn"]["every_iterations"] == 25_000


def test_paths_stand_in_commands_as_a_shell_reads_them() -> None:
    path = "/data/mein Ordner/it's {row} $HOME.pth"
    built = plan(
        "inaturalist",
        existing={"moco_ig1b": Existing(path, "Model")},
        own={"mine": Existing(path, "Model")},
    )
    table = report_config(built).tables[0]
    for option, row in (("--row", "mine"), ("--init", "moco_ig1b")):
        words = shlex.split(table.fill(row, "accuracy"))
        assert words[-2:] == [option, f"{row}={path}"]


def test_a_row_that_would_share_a_steps_name_is_refused() -> None:
    own = {"random_1": Existing("mine.pth", "Model")}
    assert "convert_random_1" in plan("linear", own=own, trials=1).steps
    with pytest.raises(UsageError, match="two steps of the plan would be called convert_random_1"):
        plan("linear", own=own, trials=2)


@pytest.mark.parametrize("name", ["m" * 101, "a__b", "a_", "_a", "1a", ""])
def test_a_name_that_no_folder_or_cell_can_have_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"--row {name[:20]}"):
        plan("linear", own={name: Existing("mine.pth", "Model")})


def test_the_longest_name_of_a_row_fits_a_file_name() -> None:
    own = {"m" * 100: Existing("mine.pth", "Model")}
    for recipe in ("appendix", "lvis"):
        assert max(map(len, filled_cells(plan(recipe, own=own)))) < 250


def test_ones_own_row_runs_beside_the_chosen_rows() -> None:
    built = plan("voc", rows=("supervised",), own={"mine": Existing("mine.pth", "Model")})
    rows = {cell.split("__")[1] for cell in filled_cells(built)}
    assert rows == {"supervised", "mine"}


def test_trials_are_seeds_and_random_rows_start_from_other_weights() -> None:
    built = plan("linear", scale="digits", rows=("random",), trials=3)
    steps = [built.step(f"linear_random_{trial}") for trial in range(3)]
    assert [step.config.model_dump()["seed"] for step in steps] == [0, 1, 2]
    assert len({step.inputs["backbone"] for step in steps}) == 3
    assert report_config(built).tables[0].trials == 3


def test_a_mounted_data_set_is_checked_in_each_layout_that_is_read() -> None:
    layouts = plan("appendix").layouts()
    assert set(layouts) == {
        *(("coco", kind) for kind in ("coco", "keypoints", "densepose")),
        *(("voc", "voc"), ("voc", "voc_segmentation")),
        *((name, name) for name in ("imagenet", "inaturalist", "lvis", "cityscapes")),
    }
    assert {layout for _, layout in layouts} <= {one.name for one in datasets()}


def test_settings_reach_a_stage_or_one_step() -> None:
    chosen = (Setting("pretrain", "epochs", "3"), Setting("linear_random_0", "lr", "1.5"))
    built = plan("linear", scale="digits", settings=chosen)
    assert built.step("pretrain_moco_in1m").config.model_dump()["epochs"] == 3
    assert built.step("linear_random_0").config.model_dump()["lr"] == 1.5
    assert built.step("linear_moco_in1m_0").config.model_dump()["lr"] == 30


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rows": ("moco_in2m",)}, UsageError, "did you mean 'moco_in1m'"),
        ({"columns": ("imagenets",)}, UsageError, "did you mean 'imagenet'"),
        ({"settings": (Setting("pretrian", "lr", "1"),)}, ConfigError, "did you mean 'pretrain'"),
        ({"settings": (Setting("pretrain", "Ir", "1"),)}, ConfigError, "did you mean 'lr'"),
        ({"settings": (Setting("pretrain", "lr", "-1"),)}, ConfigError, "greater than 0"),
    ],
)
def test_a_wrong_option_is_refused_with_the_nearest(
    options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        plan("linear", **options)


def test_full_scale_configs_are_the_papers() -> None:
    built = plan("appendix")
    configs = {name: step.config.model_dump() for name, step in built.steps.items()}
    assert (configs["linear_moco_in1m_0"]["lr"], configs["linear_moco_in1m_0"]["weight_decay"]) == (
        30.0,
        0.0,
    )
    assert configs["inaturalist_moco_in1m_0"]["lr"] == 0.025
    assert configs["inaturalist_random_0"]["lr"] == 0.1
    assert configs["imagenet_moco_in1m_0"]["lr"] == 0.03
    assert configs["supervised"]["lr"] == 0.1
    assert (configs["pretrain_plain_0"]["shuffle"], configs["pretrain_plain_0"]["epochs"]) == (
        "plain",
        80,
    )
    assert built.step("pretrain_moco_in1m").inputs["data"] == Mounted("imagenet")


def test_a_plan_refuses_what_does_not_fit() -> None:
    pretrain, report = load_stage("pretrain"), load_stage("report")
    built = Plan("bad")
    with pytest.raises(ValueError, match="input data is not bound"):
        built.add(pretrain, "one", pretrain.config())
    with pytest.raises(ValueError, match="no earlier step is called 'nobody'"):
        built.add(pretrain, "one", pretrain.config(), data=Output("nobody", "x", "Dataset"))
    with pytest.raises(ValueError, match="no input 'dat'; did you mean 'data'"):
        built.add(pretrain, "one", pretrain.config(), dat=Mounted("imagenet"))
    with pytest.raises(ValueError, match="takes a Dataset, not a Model"):
        built.add(pretrain, "one", pretrain.config(), data=Existing("x", "Model"))
    with pytest.raises(ValueError, match="takes a PretrainConfig"):
        built.add(pretrain, "one", report.config(), data=Mounted("imagenet"))
    step = built.add(pretrain, "one", pretrain.config(), data=Mounted("imagenet"))
    with pytest.raises(ValueError, match="two different steps are called one"):
        built.add(pretrain, "one", pretrain.config(seed=1), data=Mounted("imagenet"))
    again = built.add(pretrain, "other_name", pretrain.config(), data=Mounted("imagenet"))
    assert again is step


def test_segmentation_trains_each_column_on_its_own_data() -> None:
    built = plan("segmentation", rows=("moco_in1m",), trials=2)
    cells = filled_cells(built)
    assert len(cells) == 4
    for column, iterations, crop, lr in (
        ("voc", 30_000, 513, 0.003),
        ("cityscapes", 90_000, 769, 0.01),
    ):
        for trial in range(2):
            step = built.step(cells[f"segmentation__moco_in1m__{column}__{trial}"].step)
            config = step.config.model_dump()
            assert step.inputs["data"] == Mounted(column)
            assert (config["dataset"], config["iterations"], config["crop"], config["lr"]) == (
                column,
                iterations,
                crop,
                lr,
            )
            assert (config["batch_size"], config["weight_decay"]) == (16, 1e-4)
            assert config["schedule"]["drops"] == (0.7, 0.9)
            assert not config["schedule"]["by_epoch"]
            assert config["seed"] == trial
    table = report_config(built).tables[0]
    published = {(one.row, one.column): one.values for one in table.published}
    rows = ("random", "supervised", "moco_in1m", "moco_ig1b")
    assert [published[row, "voc"] for row in rows] == [(39.5,), (74.4,), (72.5,), (73.6,)]
    assert [published[row, "cityscapes"] for row in rows] == [(65.3,), (74.6,), (75.3,), (75.5,)]
