"""One module for each table or figure of the paper: its published numbers, and the plan to it.

Recipes of one's own are modules in a folder `pipelines/recipes/` anywhere on Python's path.
"""

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from components.core.config import C, apply_settings, nearest
from components.core.errors import ConfigError, UsageError
from components.core.search_path import further_folders
from components.report import Table
from components.vision.config import ALL
from pipelines.plan import Existing, Mounted, NameTakenError, Plan
from pipelines.tables import filled_cells, report_config

__path__ += further_folders(__name__, __path__)

ROW = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")  # two underscores part the names of a cell
LONGEST_ROW = 100  # characters: with a table's and a column's name it has to fit a file name

ScaleName = Literal["full", "digits"]


@dataclass(frozen=True)
class Setting:
    """A config field set by hand: `--set TARGET.FIELD=VALUE`, TARGET a stage or a step."""

    target: str
    field: str
    value: str


@dataclass(frozen=True)
class DataColumn:
    """A data set of one's own, from which a recipe makes a table.

    Attributes:
        layout: What `moco data list` calls it.
        place: A folder, a claim of a cluster or a URL; None in miniature.
        training: Images to learn from, where they could be counted, as all below.
        validation: Images to measure on.
        classes: How many.
        drawn: Whether the validation images are held out of the only split.
    """

    layout: str
    place: str | None = None
    training: int | None = None
    validation: int | None = None
    classes: int | None = None
    drawn: bool = False


@dataclass(frozen=True)
class Options:
    """What a user chooses of a recipe.

    Attributes:
        scale: `full`, the paper's sizes; `digits`, the miniature on real handwritten digits.
        rows: Only these rows of the tables; all that can be had by default.
        columns: Only these columns of the tables that have them: a schedule, a data set.
        trials: Trials of each cell; what the table wants by default (one in miniature).
        settings: Config fields set by hand.
        data: Names of the data sets that are given; a recipe may have a choice.
        buckets: Of these, the URLs of those that are in a bucket.
        sizes: How many training images they have, where pre-trainings are to fit them.
        existing: Checkpoints that exist already, by row (`moco_in1m`): a file of the
            authors', torchvision's or timm's, or an artifact of ours.
        own: Checkpoints that become rows of their own, by what these are to be called.
        own_columns: Data sets that become tables of their own, by what these are to be called.
        labels: Percents of the training labels that those tables' cells learn from.
    """

    scale: ScaleName = "full"
    rows: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    trials: int | None = None
    settings: tuple[Setting, ...] = ()
    data: tuple[str, ...] = ()
    buckets: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    existing: Mapping[str, Existing] = field(default_factory=dict)
    own: Mapping[str, Existing] = field(default_factory=dict)
    own_columns: Mapping[str, DataColumn] = field(default_factory=dict)
    labels: tuple[float, ...] = (ALL,)

    @property
    def checkpoints(self) -> Mapping[str, Existing]:
        """All that exist already, by row."""
        return {**self.existing, **self.own}

    def given(self, name: str) -> Mounted | Existing:
        """Return a data set of the user's by name: mounted, or in a bucket."""
        url = self.buckets.get(name)
        return Mounted(name) if url is None else Existing(url, "Dataset")

    def config(self, stage: str, step: str, config: C, **digits: Any) -> C:
        """Bring a full-scale config to the chosen scale, then apply the settings for it.

        Args:
            stage: Name of the stage, which a setting may target.
            step: Name of the step, likewise.
            config: At full scale.
            **digits: Changes of the config's own miniature that this use of it needs.
        """
        if self.scale == "digits":
            config = config.miniature().derive(**digits)
        chosen = {s.field: s.value for s in self.settings if s.target in (stage, step)}
        return apply_settings(config, chosen) if chosen else config


@dataclass(frozen=True)
class Recipe:
    """A named way to fill tables of the paper.

    Attributes:
        name: What `moco run NAME` takes.
        summary: One line for `moco list`.
        build: Returns the plan for the chosen options.
        takes_columns: Whether data sets of one's own become tables of it.
        listed: By which options its tables are listed.
    """

    name: str
    summary: str
    build: Callable[[Options], Plan]
    takes_columns: bool = False
    listed: Options = field(default_factory=Options)


def recipe_names() -> list[str]:
    """Return the names of all recipes: the modules of this package that are not private."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def load_recipe(name: str) -> Recipe:
    """Import a recipe by name.

    Raises:
        UsageError: if there is none, naming the nearest.
    """
    if name not in recipe_names():
        raise UsageError(
            f"no recipe is called {name!r}{nearest(name, recipe_names())} `moco list` shows all"
        )
    recipe: Recipe = importlib.import_module(f"{__name__}.{name}").RECIPE
    return recipe


def build_plan(recipe: Recipe, options: Options) -> Plan:
    """Build a recipe's plan.

    Raises:
        UsageError: if none of its tables has a chosen row or column, or takes a checkpoint.
        ConfigError: if a setting's target is neither a stage nor a step of the plan,
            or a config refuses it.
    """
    for name in options.own:
        _check_name("--row", name)
    for name in options.own_columns:
        _check_name("--column", name)
    if not recipe.takes_columns and (options.own_columns or options.labels != Options().labels):
        raise UsageError(
            f"--column and --labels are of transfer; the tables of {recipe.name} are the paper's: "
            "moco run transfer compares encoders on data of your own"
        )
    plan = _build(recipe, options)
    tables = report_config(plan).tables
    everything = report_config(_build(recipe, replace(options, columns=None))).tables
    known = {
        "row": (options.rows, [row.key for table in tables for row in table.rows]),
        "column": (
            options.columns,
            [c.key for table in (*everything, *tables) for c in table.columns],
        ),
    }
    for kind, (wanted, names) in known.items():
        for name in wanted or ():
            if name not in names:
                raise UsageError(
                    f"no {kind} is called {name!r}{nearest(name, names)} {recipe.name} has "
                    f"{', '.join(sorted(set(names)))}"
                )
    _check_checkpoints(recipe, options, tables)
    if not filled_cells(plan):
        raise UsageError(
            f"{recipe.name} would measure nothing: --row NAME=FILE makes a row of a checkpoint, "
            "--init ROW=FILE gives one for a row of the paper, --rows random,... names rows to make"
        )
    targets = {step.name for step in plan} | {step.stage.name for step in plan}
    for setting in options.settings:
        if setting.target not in targets:
            raise ConfigError(
                f"--set {setting.target}.{setting.field}: the plan has no stage or step "
                f"{setting.target!r}{nearest(setting.target, targets)}"
            )
    return plan


def _check_name(option: str, name: str) -> None:
    """Refuse what cannot be the name of a row or column: it becomes part of steps and cells."""
    kind = option.removeprefix("--")
    if not ROW.fullmatch(name):
        raise UsageError(
            f"{option} {name}: small letters, digits and underscores make the name of a {kind}, "
            "each underscore alone between two others"
        )
    if len(name) > LONGEST_ROW:
        raise UsageError(
            f"{option} {name[:20]}...: a {kind}'s name has at most {LONGEST_ROW} characters, and "
            f"this has {len(name)}; it becomes part of file names"
        )


def _build(recipe: Recipe, options: Options) -> Plan:
    """Build a plan in which no step of a user's row has the name of another step."""
    try:
        return recipe.build(options)
    except NameTakenError as taken:
        given = [("--row", name) for name in options.own if name in taken.name]
        given += [("--column", name) for name in options.own_columns if name in taken.name]
        if not given:
            raise
        option, name = max(given, key=lambda pair: len(pair[1]))
        raise UsageError(
            f"{option} {name}: two steps of the plan would be called {taken.name}; "
            f"give the {option.removeprefix('--')} another name"
        ) from None


def _check_checkpoints(recipe: Recipe, options: Options, tables: Iterable[Table]) -> None:
    """Refuse a checkpoint whose row is misspelt, taken, or in none of a built plan's tables."""
    rows = {row.key for table in tables for row in table.rows}
    without = report_config(recipe.build(replace(options, own={}))).tables
    papers = {row.key for table in without for row in table.rows}
    for name in options.existing:
        if name not in papers:
            raise UsageError(
                f"--init {name}: no row is called that{nearest(name, papers)} {recipe.name} has "
                f"{', '.join(sorted(papers))}; --row {name}=PATH makes a row of its own"
            )
    for name in options.own:
        if name in papers:
            raise UsageError(
                f"--row {name}: the tables of {recipe.name} have a row of that name; "
                f"--init {name}=PATH takes a checkpoint for it"
            )
        if name not in rows:
            raise UsageError(
                f"--row {name}: no table of {recipe.name} compares initialisations, so there is "
                "no place for it"
            )
