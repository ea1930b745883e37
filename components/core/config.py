"""Typed, frozen configs whose every fault is reported at once, with the nearest valid name."""

import difflib
import json
import types
import typing
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.errors import ConfigError
from components.core.gpus import V100S, Gpus


class Incidental:
    """Marks a field that does not change the result: `Annotated[int, Incidental()]`.

    A training goes on from its checkpoints with another value of it.
    """


class Config(BaseModel):
    """The options of a stage: immutable, without unknown keys, one JSON value."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    def miniature(self) -> Self:
        """Derive the same experiment at the size of the digits world (`--scale digits`)."""
        return self

    def layouts(self) -> Mapping[str, str]:
        """Return the layout of each data set by port, as `moco data check` calls it."""
        return {}

    def gpu_hours(self, gpus: Gpus = V100S) -> float | None:
        """Estimate what the work takes at full scale, hours of GPUs; None if nobody knows.

        Args:
            gpus: Those that it gets; by default the paper's.
        """
        return None

    def requires(self) -> Mapping[str, str]:
        """Name packages that the work needs beyond its stage's own, each with the way to it.

        Asked where the work will run, before it starts.
        """
        return {}

    def inspect(self, inputs: Mapping[str, Path]) -> None:
        """Refuse inputs that the work cannot use, as far as a glance shows.

        Asked when a plan is made, of what exists already; neither torch nor numpy is there.

        Args:
            inputs: Files, artifacts and mounted data sets by port; those that are known.

        Raises:
            MocoError: saying what does not fit.
        """

    def encoder_cost(self, inputs: Mapping[str, Path]) -> float | None:
        """Say how many times a ResNet-50's multiplications an encoder takes that the work makes.

        None if it makes none, or one like that which it reads. Asked as `inspect` is.

        Args:
            inputs: Files and artifacts by port; those that are known.
        """
        return None

    def derive(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, validated like a new one."""
        return parse_config(type(self), {**self.model_dump(mode="json"), **changes})

    def to_json(self) -> str:
        """Return the canonical JSON text: the same config gives the same text."""
        return canonical_json(self.model_dump(mode="json"))

    def identity(self) -> dict[str, Any]:
        """Return what the result depends on, as JSON values: all fields but incidental ones."""
        values = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if any(isinstance(mark, Incidental) for mark in field.metadata):
                del values[name]
            elif isinstance(value, Config):
                values[name] = value.identity()
        return values

    def changes(self, base: Self) -> dict[str, Any]:
        """Return what `base.derive` has to be given to make this config."""
        before = base.model_dump(mode="json")
        return {
            name: value
            for name, value in self.model_dump(mode="json").items()
            if value != before[name]
        }


C = TypeVar("C", bound=Config)


def canonical_json(value: Any) -> str:
    """Return the shortest JSON text with sorted keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def parse_config(config: type[C], value: str | Mapping[str, Any]) -> C:
    """Validate a config from JSON text or from a mapping.

    Raises:
        ConfigError: naming every fault with its path, the value, and for an
            unknown key the nearest field that exists.
    """
    if isinstance(value, str):
        value = _from_json(config, value)
    if not isinstance(value, Mapping):
        raise ConfigError(f"{config.__name__}: expected a JSON object, got {_shown(value)}")
    try:
        return config.model_validate_json(json.dumps(value))
    except ValidationError as error:
        faults = "\n".join(f"  {_fault(config, fault)}" for fault in error.errors())
        raise ConfigError(
            f"{config.__name__} has {error.error_count()} fault(s):\n{faults}"
        ) from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{config.__name__} is not JSON: {error}") from None


def read_config(config: type[C], *arguments: str) -> C:
    """Read a config from command-line values: JSON, or `@FILE` with JSON in it.

    Args:
        config: Its type.
        *arguments: Objects; a field of a later one goes before that of an earlier one.
    """
    document: dict[str, Any] = {}
    for argument in arguments:
        text = _read_file(argument[1:]) if argument.startswith("@") else argument
        value = _from_json(config, text)
        if not isinstance(value, dict):
            return parse_config(config, value)  # which says what it must be
        document |= value
    return parse_config(config, document)


def apply_settings(config: C, settings: Mapping[str, str]) -> C:
    """Apply `FIELD=VALUE` settings, dots leading into nested configs.

    What follows a field that is a plain dictionary is its key, dots included. A value is JSON
    where it parses as JSON, and plain text otherwise.
    """
    document = config.model_dump(mode="json")
    for path, text in settings.items():
        node, value, field = document, config, path
        while isinstance(value, Config) and "." in field:
            parent, _, field = field.partition(".")
            child = node.get(parent)
            if not isinstance(child, dict):
                raise ConfigError(
                    f"{type(config).__name__} has no field {path}: "
                    f"{parent!r} holds no further fields{nearest(parent, node)}"
                )
            node, value = child, getattr(value, parent)
        try:
            node[field] = json.loads(text)
        except ValueError:
            node[field] = text
    return parse_config(type(config), document)


def not_installed(config: Config) -> Mapping[str, str]:
    """Return what a config requires and this Python lacks, each with the way to it."""
    return {name: way for name, way in config.requires().items() if find_spec(name) is None}


def nearest(name: str, candidates: typing.Iterable[str]) -> str:
    """Return `; did you mean ...?` for the nearest candidate, or an empty text."""
    match = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""


def _read_file(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the config file {path}: {error}") from None


def _from_json(config: type[Config], text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{config.__name__} is not JSON: {error}: {_shown(text)}") from None


def _fault(config: type[Config], fault: Any) -> str:
    location = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        fields = _fields_at(config, fault["loc"][:-1])
        name = str(fault["loc"][-1])
        known = nearest(name, fields) or f"; the fields are {', '.join(fields)}"
        return f"{location}: no such field{known}"
    if fault["type"] == "missing":
        return f"{location}: is required"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error" and isinstance(fault["input"], Mapping):
        return f"{location or 'config'}: {message}"  # of several fields, which the message names
    return f"{location or 'config'}: {message} (got {_shown(fault['input'])})"


def _fields_at(config: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the field names of the config nested at a location, the outermost if unclear."""
    model = config
    for part in location:
        field = model.model_fields.get(str(part))
        nested = [] if field is None else list(_models_in(field.annotation))
        if len(nested) == 1:
            model = nested[0]
    return list(model.model_fields)


def _models_in(annotation: Any) -> typing.Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) is not None or isinstance(annotation, types.UnionType):
        for argument in typing.get_args(annotation):
            yield from _models_in(argument)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
