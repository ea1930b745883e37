"""The options that every command with a RECIPE takes."""

import importlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from components.core.dataset import Kind, find_dataset
from components.core.errors import DataError, MocoError, UsageError
from components.core.stage import stage_names
from components.core.store import is_remote, local_path
from components.vision.formats import count_stored_images, count_training_images
from pipelines.plan import Existing, Plan
from pipelines.recipes import DataColumn, Options, Setting, build_plan, load_recipe
from pipelines.recipes.transfer import HELD_OUT, TRIALS, kind_of


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

    columns_of_own: Annotated[
        tuple[str, ...],
        Parameter(
            name="--column",
            help="NAME=LAYOUT:PLACE: a data set of your own, a table of `transfer`; PLACE is a "
            "folder, on a cluster a claim, or s3://... Repeatable.",
        ),
    ] = ()
    labels: Annotated[
        str | None,
        Parameter(help="Percents of the labels that `transfer` learns from: 1,10,100."),
    ] = None

    def data(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return where every data set is, those of own columns that are mounted too.

        Args:
            given: Those of `--data`.

        Raises:
            UsageError: if a column has the name of one of these.
        """
        places = dict(given)
        for name, column in _columns(self.columns_of_own).items():
            if name in given:
                raise UsageError(f"--column {name}: --data {name} is of the same name; rename one")
            if column.place and not is_remote(column.place) and self.scale != "digits":
                places[name] = column.place
        return places

    def plan(
        self, recipe: str, data: Mapping[str, str] | None = None, *, here: bool = False
    ) -> Plan:
        """Build the plan of a recipe.

        Args:
            recipe: Its name.
            data: Where data sets are, by name: folders here, or claims of a cluster, or URLs.
            here: Whether they are folders of this machine, that own columns can be looked into.

        Raises:
            UsageError: if there is no such recipe or row, or an option is malformed.
            ConfigError: if a setting names no field or has a bad value.
            DataError: if the data of an own column cannot be used.
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
            buckets={} if self.scale == "digits" else _in_buckets(data or {}),
            sizes=_sizes(data or {}) if self.scale == "fit" else {},
            existing=_checkpoints("--init", self.initialisations, "ROW=PATH"),
            own=_checkpoints("--row", self.own, "NAME=PATH"),
            own_columns=_columns(self.columns_of_own),
            labels=_percents(self.labels),
        )
        if options.scale != "digits":
            options = _looked_into(options, here=here)
        plan = build_plan(load_recipe(recipe), options)
        _check_read(plan, options.buckets)
        return plan


def mounted(plan: Plan, places: Mapping[str, str]) -> dict[str, str]:
    """Return where the data sets are that a plan mounts: those in buckets are artifacts of it."""
    read = {source for step in plan for _, source in step.sources()}
    return {
        name: place
        for name, place in places.items()
        if not (is_remote(place) and Existing(place, "Dataset") in read)
    }


def _in_buckets(places: Mapping[str, str]) -> dict[str, str]:
    return {name: place for name, place in places.items() if is_remote(place)}


def _check_read(plan: Plan, buckets: Mapping[str, str]) -> None:
    """Refuse a data set in a bucket that the plan does not read.

    Raises:
        UsageError: naming those.
    """
    read = {source for step in plan for _, source in step.sources()}
    unread = [name for name, url in buckets.items() if Existing(url, "Dataset") not in read]
    if unread:
        raise UsageError(
            "\n".join(f"--data {name}: the plan reads no such data set" for name in unread)
            + (f"; it mounts {', '.join(plan.mounts())}" if plan.mounts() else "")
        )


def _sizes(data: Mapping[str, str]) -> dict[str, int]:
    """Count the training images of folders, and of shards in buckets.

    Raises:
        UsageError: if there are none to count, or they are not on this machine.
    """
    sizes = {}
    for name, place in data.items():
        if is_remote(place):
            sizes[name] = count_stored_images(place)
            continue
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
    Parameter(
        name="--data",
        help="NAME=FOLDER or NAME=s3://...: a data set that the plan reads. Repeatable.",
    ),
]
Claims = Annotated[
    tuple[str, ...],
    Parameter(
        name="--data",
        help="NAME=CLAIM or NAME=s3://...: the persistent volume claim that holds a data set, or "
        "where it is in a bucket. Repeatable.",
    ),
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


def _columns(values: Iterable[str]) -> dict[str, DataColumn]:
    """Read `NAME=LAYOUT:PLACE`; the miniature takes no place."""
    columns = {}
    for name, content in pairs("--column", values, "NAME=LAYOUT:PLACE").items():
        layout, _, place = content.partition(":")
        try:
            find_dataset(layout)
        except UsageError as error:
            raise UsageError(f"--column {name}={content}: {error}") from None
        columns[name] = DataColumn(layout, place or None)
    return columns


def _looked_into(options: Options, *, here: bool) -> Options:
    """Count what own columns hold, as far as they can be looked into.

    Raises:
        UsageError: if a column has no place.
        DataError: naming all columns whose data cannot be used.
    """
    columns, faults = {}, []
    for name, column in options.own_columns.items():
        if column.place is None:
            raise UsageError(
                f"--column {name}={column.layout}: say where it is, {name}={column.layout}:PLACE"
            )
        columns[name] = column
        kind = kind_of(column.layout)
        if here and kind and not is_remote(column.place):
            try:
                columns[name] = _counted(column, kind, options)
            except MocoError as error:
                faults.append(f"--column {name}={column.layout}:{column.place}: {error}")
    if faults:
        raise DataError("\n".join(faults))
    return replace(options, own_columns=columns)


def _counted(column: DataColumn, kind: Kind, options: Options) -> DataColumn:
    assert column.place
    path = Path(_absolute(column.place))
    if not path.is_dir():
        raise DataError("there is no such folder")
    try:
        # By name: to plan needs no numpy, and where there is none, nothing can be counted.
        inspection = importlib.import_module("components.datasets.inspection")
    except ModuleNotFoundError:
        return column
    found = inspection.inspect(
        column.layout,
        kind,
        path,
        labels=options.labels,
        trials=options.trials or TRIALS,
        held_out=HELD_OUT,
    )
    return replace(column, **vars(found))


def _percents(text: str | None) -> tuple[float, ...]:
    """Read `1,10,100`, ascending.

    Raises:
        UsageError: if one is no percent.
    """
    if text is None:
        return Options().labels
    percents = set()
    for part in _names("--labels", text, "1,10,100") or ():
        try:
            percents.add(float(part.removesuffix("%")))
        except ValueError:
            percents.add(math.nan)
        if not all(0 < percent <= 100 for percent in percents):
            raise UsageError(f"--labels {part}: expected percents over 0 to 100, like 1,10,100")
    return tuple(sorted(percents))


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
