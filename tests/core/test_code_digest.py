import ast
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from components.core import code_digest as module
from components.core.code_digest import code_digest, reachable
from components.core.config import Config
from components.core.stage import Port, Stage, load_stage

COMPONENTS = Path(module.__file__).parents[1]
STAGE = Stage(
    name="toy",
    summary="Be changed.",
    config=Config,
    inputs={},
    outputs={"model": Port("Model", "nothing")},
    run="components.toy.work:run",
)
WORK = '''\
"""What it is for."""

from components.core.log import get_logger
from components.toy.rates import RATE

log = get_logger(__name__)


def run(job, steps=90_000):
    """Train."""
    log.info("training", steps=steps)
    for step in range(steps):  # each batch once
        job.lr = RATE * job.schedule(step)
    return job
'''
SOURCES = {
    "__init__.py": "",
    "toy/__init__.py": "STAGE = 1\n",
    "toy/__main__.py": "import components.toy\n",
    "toy/work.py": WORK,
    "toy/rates.py": "RATE = 0.1\n",
    "core/__init__.py": "",
    "core/log.py": "IN_CODE_DIGEST = False\n\n\ndef get_logger(name): ...\n",
    "other.py": "TEXT = 1\n",
}

Digest = Callable[..., str]


@pytest.fixture
def digest(tmp_path: Path) -> Digest:
    """Give the digest of a small stage, some of whose files are others."""

    def digest(files: dict[str, str | None] | None = None) -> str:
        shutil.rmtree(tmp_path / "components", ignore_errors=True)
        for name, text in {**SOURCES, **(files or {})}.items():
            path = tmp_path / "components" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is not None:
                path.write_text(text)
        module._digest.cache_clear()
        return code_digest(STAGE, Config(), [tmp_path / "components"])

    return digest


def work(old: str, new: str) -> dict[str, str | None]:
    """The work with something replaced."""
    assert old in WORK
    return {"toy/work.py": WORK.replace(old, new)}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  # each batch once", ""),
        ('"""Train."""', '"""Train, in other words."""'),
        ('    """Train."""\n', ""),
        ('"""What it is for."""\n', ""),
        ("steps=90_000", "steps=90000"),
        ("RATE * job.schedule(step)", "(\n            RATE * job.schedule(step)\n        )"),
        ('"training"', '"training begins"'),
        ("log.info", "log.debug"),
        ("steps=steps)", "of=steps)"),
        ("steps=steps)", "steps=steps, data=job.config.data, seed=3)"),
        ('    log.info("training", steps=steps)\n', ""),
        ('log.info("training', 'get_logger(__name__).info("training'),
    ],
)
def test_what_people_read_does_not_move_it(digest: Digest, old: str, new: str) -> None:
    assert digest(work(old, new)) == digest()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("90_000", "90_001"),
        ("90_000", "90_000.0"),
        ("90_000", "True"),
        ("steps=90_000", "steps: int = 90_000"),
        ("RATE * job", "RATE / job"),
        ("RATE * job", "-RATE * job"),
        ("schedule(step)", "schedule(steps)"),
        ("    return job", "    return None"),
        ("    return job", "        return job"),
        ('"""Train."""', 'job.lr = """Train."""'),
        # What is computed for a log may draw a number, or read what can be read once.
        ("steps=steps)", "steps=next(job.batches))"),
        ("steps=steps)", "steps=[*job.batches])"),
        ("steps=steps)", "steps=job.counts[0])"),
        ("steps=steps)", "steps=(steps := 3))"),
        # These are no logs.
        ("log.info(", "log.append("),
        ("log.info(", "job.info("),
        ('log.info("training"', 'job.lr = log.info("training"'),
        ("log = get_logger", "log = make"),
        ("(job, steps", "(job, log, steps"),
        ('    """Train."""\n', "    log = job\n"),
    ],
)
def test_what_is_executed_moves_it(digest: Digest, old: str, new: str) -> None:
    assert digest(work(old, new)) != digest()


def test_a_log_of_another_kind_counts_by_all_it_is_told(digest: Digest) -> None:
    assert digest(work("log.info(", "job.info(")) != digest(work('log.info("', 'job.info("re'))


@pytest.mark.parametrize(
    "statement",
    [
        "import components.other",
        "import components.other as renamed",
        "from components import other",
        "from components.other import TEXT",
        "from .. import other",
        "from ..other import TEXT",
        "def f():\n    from components.other import TEXT",
        "importlib.import_module('components.other')",
        "import_module('components.other').run()",
    ],
)
def test_imports_are_followed_wherever_they_stand(digest: Digest, statement: str) -> None:
    importing: dict[str, str | None] = {"toy/rates.py": statement + "\nRATE = 0.1\n"}

    before = digest(importing)

    assert digest({**importing, "other.py": "TEXT = 2\n"}) != before
    assert digest({**importing, "other.py": "TEXT = 1  # as before\n"}) == before


@pytest.mark.parametrize(
    "file", ["__init__.py", "toy/__init__.py", "toy/__main__.py", "toy/work.py", "toy/rates.py"]
)
def test_all_that_a_command_runs_is_in_it(digest: Digest, file: str) -> None:
    assert digest({file: (SOURCES[file] or "") + "CHANGED = 1\n"}) != digest()


def test_what_nothing_imports_is_not(digest: Digest) -> None:
    assert digest({"other.py": "TEXT = 2\n", "third/__init__.py": "A = 1\n"}) == digest()


def test_a_renamed_module_moves_it(digest: Digest) -> None:
    renamed = {**work("toy.rates", "toy.speeds"), "toy/speeds.py": SOURCES["toy/rates.py"]}
    assert digest({**renamed, "toy/rates.py": None}) != digest()


@pytest.mark.parametrize("name", ["toy/mean.json", "toy/colours.csv", "toy/page.j2", "toy/a/b.txt"])
def test_data_beside_the_sources_counts_to_the_byte(digest: Digest, name: str) -> None:
    assert len({digest(), digest({name: "1"}), digest({name: "1 "})}) == 3


@pytest.mark.parametrize(
    "name", ["toy/README.md", "toy/.work.py.swp", "toy/__pycache__/work.pyc", "third/mean.json"]
)
def test_other_files_do_not(digest: Digest, name: str) -> None:
    assert digest({"third/__init__.py": "", name: "1"}) == digest()


@pytest.mark.parametrize(
    ("files", "changed"),
    [
        ({"toy/rates.py": "IN_CODE_DIGEST = False\n"}, {"toy/rates.py"}),
        # A package speaks for all that is in it, and takes with it what only it imports.
        (
            {
                "toy/work.py": "from components.carry.far import go\n",
                "carry/__init__.py": "IN_CODE_DIGEST = False\n",
                "carry/far.py": "import components.other\n",
            },
            {"carry/__init__.py", "carry/far.py", "carry/data.json", "other.py"},
        ),
    ],
)
def test_a_module_may_leave_itself_out(
    digest: Digest, files: dict[str, str | None], changed: set[str]
) -> None:
    before = digest(files)
    for file in changed:
        assert digest({**files, file: (files.get(file) or "") + "CHANGED = 1\n"}) == before


@pytest.mark.parametrize(
    "text",
    ["IN_CODE_DIGEST = True\n", "IN_CODE_DIGEST = 0\n", "def f():\n    IN_CODE_DIGEST = False\n"],
)
def test_only_the_plain_statement_leaves_out(digest: Digest, text: str) -> None:
    assert digest({"toy/rates.py": text}) != digest({"toy/rates.py": text + "CHANGED = 1\n"})


def test_left_out_code_counts_for_those_who_import_it_another_way(digest: Digest) -> None:
    files: dict[str, str | None] = {
        "toy/rates.py": "IN_CODE_DIGEST = False\nimport components.other\n",
        "toy/__main__.py": "import components.other\n",
    }
    assert digest({**files, "other.py": "TEXT = 2\n"}) != digest(files)


def test_every_python_gives_the_same() -> None:
    """Syntax trees of f-strings and of what is left empty differ between 3.11, 3.12 and 3.13."""
    text = """def f(*, a=None, **b):
    return f"{a!r:>{b}} {{}} {a:.2f}é", "\\udcff\U0001fae8", 1e-5
"""
    source = module._read(text.encode(), "components")
    assert source.digest == "6e35045f0c2dbac9de4b619416b1fd38303cb6ed30b1fe339887b9cb6b4626a5"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project's own code."""
    ignored = shutil.ignore_patterns("__pycache__")
    return shutil.copytree(COMPONENTS, tmp_path / "components", ignore=ignored)


def project_digest(project: Path, stage: str) -> str:
    module._digest.cache_clear()
    loaded = load_stage(stage)
    return code_digest(loaded, loaded.config(), [project])


def test_a_stage_reaches_what_it_runs_and_no_other_stage() -> None:
    reached = reachable(["components.pretrain", "components.pretrain.train"], [COMPONENTS])
    assert {"pretrain/mechanisms.py", "training/loop.py", "core/config.py"} <= reached.keys()
    others = ("report/", "classification/", "detection/", "digits/", "datasets/voc/")
    assert not any(path.startswith(others) for path in reached)


def test_formatting_all_of_the_project_anew_changes_nothing(project: Path) -> None:
    before = project_digest(project, "pretrain")
    for path in project.rglob("*.py"):
        path.write_text("# anew\n" + ast.unparse(ast.parse(path.read_bytes())), "utf-8")
    assert project_digest(project, "pretrain") == before


@pytest.mark.parametrize("stage", ["pretrain", "detection.coco", "classification.linear"])
def test_a_card_that_was_measured_makes_no_training_stale(project: Path, stage: str) -> None:
    before = project_digest(project, stage)
    gpus = project / "core/gpus.py"
    text = gpus.read_text("utf-8")
    assert '    "H200": {' in text
    measured = text.replace(
        '    "H200": {', '    "B200": {"fpn": (Rate(16, 99.0),)},\n    "H200": {'
    )
    gpus.write_text(measured, "utf-8")
    assert project_digest(project, stage) == before


@pytest.mark.parametrize(
    "file",
    ["core/store/s3.py", "core/log.py", "core/ports.py", "vision/pictures.py"],
)
def test_what_carries_and_what_shows_makes_no_training_stale(project: Path, file: str) -> None:
    before = project_digest(project, "detection.coco")
    with (project / file).open("a") as source:
        source.write("\nCHANGED = 1\n")
    assert project_digest(project, "detection.coco") == before


def test_templates_count_for_the_report_alone(project: Path) -> None:
    before = {name: project_digest(project, name) for name in ("pretrain", "report")}
    with (project / "report/report.md.j2").open("a") as template:
        template.write("another line")
    assert project_digest(project, "pretrain") == before["pretrain"]
    assert project_digest(project, "report") != before["report"]


def changed(project: Path, file: str) -> Callable[[], None]:
    """Change a source, and return what changes it back."""
    path = project / file
    content = path.read_bytes()
    path.write_bytes(content + b"\nCHANGED = 1\n")

    def undo() -> None:
        path.write_bytes(content)

    return undo


@pytest.mark.parametrize(
    ("stage", "config", "moved", "unmoved"),
    [
        (
            "detection.evaluate",
            {"dataset": "keypoints"},
            {"coco/keypoints.py", "coco/reader.py", "coco/results.py"},
            {"coco/densepose.py", "coco/digits.py", "voc/detection.py"},
        ),
        (
            "segmentation",
            {"dataset": "voc"},
            {"voc/segmentation.py", "voc/lists.py", "interface.py"},
            {"voc/detection.py", "voc/digits.py", "cityscapes/labels.py"},
        ),
        (
            "pretrain",
            {"data": "images"},
            {"images/reading.py", "imagenet/reading.py"},
            {"inaturalist/reading.py"},
        ),
        (
            "digits",
            {},
            {"coco/digits.py", "coco/digits_densepose.py", "voc/digits.py"},
            {"voc/detection.py", "coco/file.py"},
        ),
    ],
)
def test_the_data_sets_that_a_config_names_are_in_it_and_no_others(
    project: Path, stage: str, config: dict[str, str], moved: set[str], unmoved: set[str]
) -> None:
    loaded = load_stage(stage)

    def digest() -> str:
        module._digest.cache_clear()
        return code_digest(loaded, loaded.config(**config), [project])

    before = digest()
    found = set()
    for file in moved | unmoved:
        undo = changed(project, f"datasets/{file}")
        if digest() != before:
            found.add(file)
        undo()
    assert found == moved


def test_only_the_start_of_a_stage_imports_by_a_name_that_is_computed() -> None:
    computed = set()
    for path in COMPONENTS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            match node.args:
                case [ast.Constant(str(written)), *_] if not written.startswith("."):
                    continue
            if name in ("import_module", "__import__", "load_stage"):
                computed.add(path.relative_to(COMPONENTS).as_posix())
    assert computed == {"core/dataset.py", "core/main.py", "core/stage.py"}
