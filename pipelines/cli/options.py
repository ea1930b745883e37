"""The options that every command with a RECIPE takes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from components.core.errors import UsageError
from components.core.stage import stage_names
from components.core.store import is_remote, local_path
from components.vision.formats import count_training_images
from pipelines.plan import Existing, Plan
from pipelines.recipes import Options, Setting, build_plan, load_recipe


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """What a user chooses of a recipe."""

    scale: Annotated[
        Literal["full", "fit", "digits"],
        Parameter(
            help="full: the paper's sizes; fit: the same, pre-trainings fitted to your data; "
            "digits: the miniature, real handwritten digits.",
            show_default=True,
        ),
    ] = "full"
    rows: Annotated[
        str | None, Parameter(help="Only these rows of the tables: random,moco_in1m.")
    ] = None
    columns: Annotated[str | None, Parameter(help="Only these columns of the tables: 1x,voc.")] = (
        None
    )
    trials: Annotated[
        int | None, Parameter(help="Trials of each cell; the paper's by default, one for digits.")
    ] = None
    settings: Annotated[
        tuple[str, ...],
        Parameter(
            name="--set", help="TARGET.FIELD=VALUE: a config field of a stage or step. Repeatable."
        ),
    ] = ()
    initialisations: Annotated[
        tuple[str, ...],
        Parameter(
            name="--init",
            help="ROW=PATH or ROW=s3://...: a checkpoint that exists already. Repeatable.",
        ),
    ] = ()
    own: Annotated[
        tuple[str, ...],
        Parameter(
            name="--row",
            help="NAME=PATH or NAME=s3://...: a checkpoint as a row of its own. Repeatable.",
        ),
    ] = ()

    def plan(self, recipe: str, data: Mapping[str, str] | None = None) -> Plan:
        """Build the plan of a recipe.

        Args:
            recipe: Its name.
            data: Where data sets are, by name: folders here, or claims of a cluster.

        Raises:
            UsageError: if there is no such recipe or row, or an option is malformed.
            ConfigError: if a setting names no field or has a bad value.
        """
        if self.trials is not None and self.trials < 1:
            raise UsageError(f"--trials {self.trials}: at least one trial")
        options = Options(
            scale="full" if self.scale == "fit" else self.scale,
            rows=_names("--rows", self.rows, "random,moco_in1m"),
            columns=_names("--columns", self.columns, "1x"),
            trials=self.trials,
            settings=tuple(map(_setting, self.settings)),
            data=tuple(data or ()),
            sizes=_sizes(data or {}) if self.scale == "fit" else {},
            existing=_checkpoints("--init", self.initialisations, "ROW=PATH"),
            own=_checkpoints("--row", self.own, "NAME=PATH"),
        )
        return build_plan(load_recipe(recipe), options)


def _sizes(data: Mapping[str, str]) -> dict[str, int]:
    """Count the training images of folders.

    Raises:
        UsageError: if there are none to count, or they are not on this machine.
    """
    sizes = {}
    for name, place in data.items():
        folder = local_path(place).expanduser()
        if not folder.exists():
            raise UsageError(
                f"--scale fit counts the images of a folder here, and --data {name}={place} is "
                "none; for a claim of a cluster set pretrain.epochs and pretrain.negatives, as "
                "`moco plan` proposes where the folder is"
            )
        sizes[name] = count_training_images(folder, name)
    if not sizes:
        raise UsageError("--scale fit counts images: say where they are, --data NAME=FOLDER")
    return sizes


RecipeName = Annotated[str, Parameter(help="A recipe of `moco list`.")]
RunName = Annotated[str, Parameter(help="A run of `moco status`.")]
StepName = Annotated[str, Parameter(help="A step of that run.")]
Data = Annotated[
    tuple[str, ...],
    Parameter(name="--data", help="NAME=FOLDER: a data set that the plan reads. Repeatable."),
]
Jobs = Annotated[
    int | None,
    Parameter(help="Steps at a time; by default as many as the cores, memory or GPUs allow."),
]
ClusterValues = Annotated[
    tuple[str, ...],
    Parameter(
        name="--cluster",
        help="KEY=VALUE of the cluster's options, or @FILE with JSON. Repeatable.",
    ),
]
BackendName = Annotated[
    str, Parameter(name="--backend", help="What runs it: a package of `pipelines/backends`.")
]
Json = Annotated[bool, Parameter(name="--json", help="Print JSON for machines.")]


def pairs(option: str, values: Iterable[str], form: str) -> dict[str, str]:
    """Read repeated `NAME=VALUE` options.

    Raises:
        UsageError: naming every value of another form, and every name given twice.
    """
    read: dict[str, str] = {}
    faults = []
    for value in values:
        name, equals, content = value.partition("=")
        if not (name and equals and content):
            faults.append(f"{option} {value}: expected {option} {form}")
        elif name in read:
            faults.append(f"{option} {name} is given twice")
        read[name] = content
    if faults:
        raise UsageError("\n".join(faults))
    return read


def _names(option: str, text: str | None, example: str) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise UsageError(f"{option} is empty: name some, like {option} {example}")
    return names


def _checkpoints(option: str, values: Iterable[str], form: str) -> dict[str, Existing]:
    return {
        row: Existing(_absolute(uri), "Model") for row, uri in pairs(option, values, form).items()
    }


def _setting(text: str) -> Setting:
    """Read `TARGET.FIELD=VALUE`; a stage's name may itself hold dots."""
    path, equals, value = text.partition("=")
    parts = path.split(".")
    if not equals or len(parts) < 2 or not all(parts):
        raise UsageError(f"--set {text}: expected --set TARGET.FIELD=VALUE, like pretrain.epochs=8")
    stages = set(stage_names())
    for length in range(len(parts) - 1, 1, -1):
        if ".".join(parts[:length]) in stages:
            return Setting(".".join(parts[:length]), ".".join(parts[length:]), value)
    return Setting(parts[0], ".".join(parts[1:]), value)


def _absolute(uri: str) -> str:
    """Make a path independent of the working directory."""
    return uri if is_remote(uri) else str(local_path(uri).expanduser().absolute())
