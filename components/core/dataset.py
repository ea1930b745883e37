"""Which data sets there are: each is a folder of `components/datasets/`, found as stages are.

A declaration says what a data set is called and which code reads it; importing it imports neither
numpy nor torch. Whoever has a data set of their own puts its folder there, or into a folder
`components/datasets/` anywhere on Python's path: no other file names it.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from components.core.config import nearest
from components.core.errors import UsageError

Kind = Literal["images", "classification", "detection", "segmentation"]
"""What can be learned from a data set. `images` has no classes, and is for pre-training only."""

_PACKAGE = "components.datasets"


@dataclass(frozen=True)
class Miniature:
    """A writer of real handwritten digits in a data set's layout: a port of the stage `digits`.

    Attributes:
        write: `module:function`, which takes the stage's config and a folder.
        description: Of what it writes, one line.
    """

    write: str
    description: str


@dataclass(frozen=True)
class Dataset:
    """The declaration of a data set, an entry of `DATASETS` in its folder's `__init__`.

    Attributes:
        name: What configs, `moco data check` and artifacts call it.
        summary: What it is and how it is laid out, one line.
        readers: By what can be learned from it, `module:class` of what reads it for that, by
            `components.datasets.interface`; it is made with the name.
        miniature: Its writer; None where another data set's folder holds it, too.
    """

    name: str
    summary: str
    readers: Mapping[Kind, str]
    miniature: Miniature | None = None

    def __post_init__(self) -> None:
        if not self.readers or not {*self.readers} <= {*get_args(Kind)}:
            raise ValueError(f"data set {self.name}: readers {self.readers} of {get_args(Kind)}")

    @property
    def folder(self) -> str:
        """The module that declares it."""
        return next(iter(self.readers.values())).partition(":")[0].rpartition(".")[0]

    def modules(self, *, written: bool) -> list[str]:
        """Name the modules that it is read by, or written by in miniature."""
        places = [self.miniature.write] if written and self.miniature else self.readers.values()
        return [self.folder, *(place.partition(":")[0] for place in places)]

    def load(self, kind: Kind) -> Any:
        """Import what reads it for a kind that it has.

        Raises:
            UsageError: if a package that it needs is not installed.
        """
        return _load(self.readers[kind], f"reading {self.name}")(self.name)

    def load_writer(self) -> Callable[[Any, Path], None]:
        """Import what writes its miniature."""
        assert self.miniature is not None
        writer: Callable[[Any, Path], None] = _load(self.miniature.write, f"writing {self.name}")
        return writer


def datasets() -> list[Dataset]:
    """Find every data set, by name.

    Raises:
        UsageError: if two have one name.
    """
    known: dict[str, Dataset] = {}
    for folder in _folders():
        for dataset in getattr(importlib.import_module(f"{_PACKAGE}.{folder}"), "DATASETS", ()):
            if known.setdefault(dataset.name, dataset) != dataset:
                raise UsageError(
                    f"two data sets are called {dataset.name!r}: in "
                    f"{known[dataset.name].folder} and in {dataset.folder}; rename one of them"
                )
    return [known[name] for name in sorted(known)]


def find_dataset(name: str, kind: Kind | None = None) -> Dataset:
    """Find a data set by its name, or by its folder's where only one in it is of the kind.

    Raises:
        UsageError: if there is none, naming the nearest.
    """
    fitting = [dataset for dataset in datasets() if kind is None or kind in dataset.readers]
    named = [dataset for dataset in fitting if dataset.name == name]
    if not named and kind:
        named = [dataset for dataset in fitting if dataset.folder == f"{_PACKAGE}.{name}"]
    if len(named) != 1:
        names = [dataset.name for dataset in fitting]
        told = f" for {kind}" if kind else ""
        hint = nearest(name, names)
        raise UsageError(
            f"no data set{told} is called {name!r}{f'{hint} There' if hint else '; there'} are "
            f"{', '.join(names)}"
        )
    return named[0]


def of_kind(*kinds: Kind) -> Callable[[str], str]:
    """Make a validator of names of data sets, for fields of configs."""
    return partial(_check_name, kinds)


def dataset_roots() -> list[Path]:
    """Return the folders that hold packages called `components` with data sets in them."""
    package = importlib.import_module(_PACKAGE)
    return [Path(folder).parent for folder in package.__path__]


def _folders() -> Iterator[str]:
    package = importlib.import_module(_PACKAGE)
    for root in map(Path, package.__path__):
        yield from sorted(path.parent.name for path in root.glob("[a-z]*/__init__.py"))


def _check_name(kinds: tuple[Kind, ...], name: str) -> str:
    faults = []
    for kind in kinds:
        try:
            find_dataset(name, kind)
        except UsageError as error:
            faults.append(str(error))
        else:
            return name
    raise ValueError(faults[-1])


def _load(place: str, purpose: str) -> Any:
    module, _, name = place.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "components":
            raise
        raise UsageError(f"{purpose} needs {error.name}: install moco-transfer[train]") from None
