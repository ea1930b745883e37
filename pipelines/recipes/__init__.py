"""One module for each table or figure of the paper: its published numbers, and the plan to it."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from components.core.config import C, apply_settings, nearest
from components.core.errors import ConfigError, UsageError
from pipelines.plan import Existing, Plan

ScaleName = Literal["full", "digits"]


@dataclass(frozen=True)
class Setting:
    """A config field set by hand: `--set TARGET.FIELD=VALUE`, TARGET a stage or a step."""

    target: str
    field: str
    value: str


@dataclass(frozen=True)
class Options:
    """What a user chooses of a recipe.

    Attributes:
        scale: `full`, the paper's sizes; `digits`, the miniature on real handwritten digits.
        rows: Only these rows of the tables; all that can be had by default.
        columns: Only these columns of the tables that have them: a schedule, a data set.
        trials: Trials of each cell; what the table wants by default (one in miniature).
        settings: Config fields set by hand.
        existing: Checkpoints that exist already, by initialisation (`moco_in1m`): a
            file of the authors', torchvision's or timm's, or an artifact of ours.
    """

    scale: ScaleName = "full"
    rows: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    trials: int | None = None
    settings: tuple[Setting, ...] = ()
    existing: Mapping[str, Existing] = field(default_factory=dict)

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
    """

    name: str
    summary: str
    build: Callable[[Options], Plan]


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
        UsageError: if none of its tables has a chosen row or column.
        ConfigError: if a setting's target is neither a stage nor a step of the plan,
            or a config refuses it.
    """
    plan = recipe.build(options)
    tables = plan.report_config().tables
    everything = recipe.build(replace(options, columns=None)).report_config().tables
    known = {
        "row": (options.rows, [row.key for table in tables for row in table.rows]),
        "column": (options.columns, [c.key for table in everything for c in table.columns]),
    }
    for kind, (wanted, names) in known.items():
        for name in wanted or ():
            if name not in names:
                raise UsageError(
                    f"no {kind} is called {name!r}{nearest(name, names)} {recipe.name} has "
                    f"{', '.join(sorted(set(names)))}"
                )
    targets = {step.name for step in plan} | {step.stage.name for step in plan}
    for setting in options.settings:
        if setting.target not in targets:
            raise ConfigError(
                f"--set {setting.target}.{setting.field}: the plan has no stage or step "
                f"{setting.target!r}{nearest(setting.target, targets)}"
            )
    return plan
