"""The one idea of this project: a stage is a typed command line.

    python -m components.NAME --config JSON|@FILE --input.PORT PATH --output.PORT PATH

A declaration builds that command (`Stage.argv`) and reads it back (`Stage.parse`);
whoever runs a stage only supplies paths.
"""

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NoReturn, get_args, get_origin

from pydantic import JsonValue

import components
from components.core.config import C, Config, nearest, read_config
from components.core.errors import UsageError
from components.core.kind import ArtifactKind
from components.core.manifest import MANIFEST, UNFINISHED, Manifest

NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Port:
    """An artifact that a stage reads or writes.

    Attributes:
        kind: What the artifact is.
        description: One line for the help.
        optional: An input that may be left out.
        many: An input that takes any number of artifacts, each under a key of its own.
        foreign: An input that may also come from elsewhere, without a manifest: a single file, or
            a folder of Hugging Face, which stands for its weights; for a data set any folder.
    """

    kind: ArtifactKind
    description: str
    optional: bool = False
    many: bool = False
    foreign: bool = False

    @property
    def any_data(self) -> bool:
        """Whether it takes a data set that no stage made."""
        return self.foreign and self.kind == "Dataset"

    def takes_plain(self, path: Path) -> bool:
        """Say whether it takes a folder as it is: a data set that no stage made or began to."""
        made = any((path / name).exists() for name in (MANIFEST, UNFINISHED))
        return self.any_data and path.is_dir() and not made


@dataclass(frozen=True)
class Resources:
    """What a stage wants of a cluster node at full scale.

    Attributes:
        gpus: GPUs of the pod; the stage starts one process for each.
        cpus: CPU cores.
        memory: Main memory, GiB.
        shared_memory: Size of /dev/shm, GiB; data loading processes pass batches through it.
    """

    gpus: int = 0
    cpus: int = 2
    memory: int = 4
    shared_memory: int = 0


@dataclass(frozen=True)
class Mount:
    """A data set folder that is mounted, not passed as an artifact."""

    path: str


Source = str | Mount
"""Where an input is found: the path of an artifact, or a mounted folder."""


@dataclass(frozen=True)
class Invocation(Generic[C]):
    """A stage's command line, read.

    Attributes:
        config: The validated config.
        inputs: For each bound input port its source, or for a `many` port a mapping of sources.
        outputs: For each output port its path.
        state: Folder or URL for what must outlive a pod (checkpoints).
        executor_input: Kubeflow Pipelines' description of the task, JSON, if it runs there.
    """

    config: C
    inputs: Mapping[str, Source | Mapping[str, Source]]
    outputs: Mapping[str, str]
    state: str | None = None
    executor_input: str | None = None


@dataclass(frozen=True)
class Job(Generic[C]):
    """What a stage's work is given: its config, and paths that are ready to use.

    Attributes:
        config: The validated config.
        paths: Input paths by port, or by `PORT.KEY`; every artifact is verified.
        manifests: Manifests of the inputs that are artifacts of ours, by the same names.
        identity: Says which work this is, as JSON values: config but for what is incidental in
            it, digests of the artifacts that it reads, content of the mounted data sets if it can
            be resumed, code.
        outputs: For each output an existing, empty folder; for HTML a file to write.
        state: Folder or URL for what must outlive a pod (checkpoints).
        facts: What the work wants in the manifest of its outputs.
    """

    config: C
    paths: Mapping[str, Path]
    manifests: Mapping[str, Manifest]
    identity: Mapping[str, JsonValue]
    outputs: Mapping[str, Path]
    state: str
    facts: dict[str, JsonValue] = field(default_factory=dict)

    def input(self, port: str) -> Path:
        """Return the path of an input."""
        return self.paths[port]

    def has_input(self, port: str) -> bool:
        """Say whether an optional input was given."""
        return port in self.paths

    def inputs(self, port: str) -> dict[str, Path]:
        """Return the paths of a `many` input by key."""
        members = (name for name in self.paths if name.startswith(f"{port}."))
        return {name.removeprefix(f"{port}."): self.paths[name] for name in members}

    def output(self, port: str) -> Path:
        """Return the folder (or HTML file) that an output goes to."""
        return self.outputs[port]

    def lineage(self, port: str) -> Manifest | None:
        """Return the manifest of an input (`PORT` or `PORT.KEY`), if it is an artifact of ours."""
        return self.manifests.get(port)


@dataclass(frozen=True)
class Stage(Generic[C]):
    """The declaration of a stage; importing it imports neither torch nor kfp.

    Attributes:
        name: Where it is: module `components.NAME` holds the declaration as `STAGE`.
        summary: One line for the help.
        config: The type of its config.
        inputs: Its input ports by name.
        outputs: Its output ports by name.
        run: `module:function` that does the work; imported only when it starts.
        image: The folder below `images/` that it runs in.
        resources: What it wants at full scale.
        resumable: Whether it keeps in-flight state beside its first output.
    """

    name: str
    summary: str
    config: type[C]
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    run: str
    image: str = "torch"
    resources: Resources = field(default_factory=Resources)
    resumable: bool = False

    def __post_init__(self) -> None:
        for name in (*self.name.split("."), *self.inputs, *self.outputs):
            if not NAME.fullmatch(name):
                raise ValueError(f"stage {self.name}: {name!r} is not a lower-case identifier")

    @property
    def module(self) -> str:
        """The module to run with `python -m`."""
        return f"components.{self.name}"

    def argv(
        self,
        config: C | str,
        inputs: Mapping[str, Source | Mapping[str, Source]],
        outputs: Mapping[str, str],
        state: str | None = None,
        *,
        executor_input: str | None = None,
        changes: str | None = None,
    ) -> list[str]:
        """Build the command line, without the interpreter: `-m components.NAME --config ...`.

        Args:
            config: The config, or a text that a platform replaces by its JSON.
            inputs: Sources by port; a mapping of sources for a `many` port.
            outputs: Paths by port.
            state: Where in-flight state lives, if the stage is resumable.
            executor_input: The platform's description of the task, if it has one.
            changes: JSON of the fields in which this use of the stage differs from the config,
                or a text that a platform replaces by it.
        """
        argv = [
            "-m",
            self.module,
            "--config",
            config if isinstance(config, str) else config.to_json(),
        ]
        if changes is not None:
            argv += ["--changes", changes]
        for port, source in inputs.items():
            if isinstance(source, Mapping):
                for key, entry in source.items():
                    argv += _input_argument(f"{port}.{key}", entry)
            else:
                argv += _input_argument(port, source)
        for port, path in outputs.items():
            argv += [f"--output.{port}", path]
        if state is not None:
            argv += ["--state", state]
        if executor_input is not None:
            argv += ["--executor-input", executor_input]
        return argv

    def parse(self, arguments: Sequence[str]) -> Invocation[C]:
        """Read the arguments after `python -m components.NAME`.

        Raises:
            UsageError: naming every option that is unknown, missing or given twice.
            ConfigError: naming every fault of the config.
        """
        return _Reader(self).read(arguments)

    def help(self) -> str:
        """Return the help text, the config's fields with their defaults included."""
        lines = [
            f"{self.summary}\n",
            f"usage: python -m {self.module} [--config JSON|@FILE] [--changes JSON|@FILE]"
            + "".join(f" {_usage(name, port)}" for name, port in self.inputs.items())
            + "".join(f" --output.{name} PATH" for name in self.outputs)
            + (" [--state URL]" if self.resumable else ""),
            "\nPATH is a folder, or one in a bucket: s3://BUCKET/KEY",
        ]
        for title, ports in (("inputs", self.inputs), ("outputs", self.outputs)):
            if ports:
                lines.append(f"\n{title}:")
                lines += [
                    f"  {name:<14} {port.kind}: {port.description}" for name, port in ports.items()
                ]
        lines.append(
            "\nconfig (a JSON object, or @FILE with one; fields of --changes go before --config's):"
        )
        lines += _describe_fields(self.config)
        return "\n".join(lines)


def load_stage(name: str) -> Stage[Any]:
    """Import the declaration of a stage by its name.

    Raises:
        UsageError: if there is none, naming the nearest.
    """
    stage = None
    if all(NAME.fullmatch(part) for part in name.split(".")):
        try:
            stage = getattr(importlib.import_module(f"components.{name}"), "STAGE", None)
        except ModuleNotFoundError as error:
            if not f"components.{name}".startswith(error.name or "?"):
                raise
    if not isinstance(stage, Stage):
        raise UsageError(f"no stage is called {name!r}{nearest(name, stage_names())}")
    return stage


def stage_names() -> Iterator[str]:
    """Name every stage: each package below `components/` declares its own.

    One that is a stage holds `STAGE`; one with stages among its modules names these in `STAGES`.
    """
    for package in pkgutil.iter_modules(components.__path__):
        if package.ispkg:
            declared = importlib.import_module(f"components.{package.name}")
            if hasattr(declared, "STAGE"):
                yield package.name
            yield from (f"{package.name}.{module}" for module in getattr(declared, "STAGES", ()))


def _input_argument(name: str, source: Source) -> list[str]:
    if isinstance(source, Mount):
        return [f"--mount.{name}", source.path]
    return [f"--input.{name}", source]


def _usage(name: str, port: Port) -> str:
    option = f"--input.{name}{'.KEY' if port.many else ''} PATH"
    if port.kind == "Dataset":
        option = f"--input.{name} PATH|--mount.{name} FOLDER"
    return f"[{option}]" + ("..." if port.many else "") if port.optional or port.many else option


def _describe_fields(config: type[Config], indent: str = "  ") -> Iterator[str]:
    for name, info in config.model_fields.items():
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, Config):
            yield f"{indent}{name}: {info.description or ''}".rstrip()
            yield from _describe_fields(annotation, indent + "  ")
            continue
        default = (
            "required"
            if info.is_required()
            else json.dumps(
                info.get_default(call_default_factory=True, validated_data={}), default=str
            )
        )
        description = " ".join((info.description or "").split())
        yield f"{indent}{name} ({_type_name(annotation)}, {default}) {description}".rstrip()


def _type_name(annotation: Any) -> str:
    plain: dict[Any, str] = {type(None): "null", ...: "..."}
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    if not arguments:
        return plain.get(annotation) or str(getattr(annotation, "__name__", annotation))
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return "|".join(str(argument) for argument in arguments)
    if origin in (tuple, list, dict):
        return f"{origin.__name__} of {', '.join(map(_type_name, arguments))}"
    return "|".join(_type_name(argument) for argument in arguments)


class _Reader(Generic[C]):
    """Reads one command line, collecting every fault before it complains."""

    def __init__(self, stage: Stage[C]) -> None:
        self.stage = stage
        self.faults: list[str] = []
        self.config, self.changes = "{}", "{}"
        self.inputs: dict[str, Source | dict[str, Source]] = {}
        self.outputs: dict[str, str] = {}
        self.options: dict[str, str] = {}

    def read(self, arguments: Sequence[str]) -> Invocation[C]:
        rest = list(arguments)
        while rest:
            option = rest.pop(0)
            option, equals, value = option.partition("=")
            if not equals:
                if not rest:
                    self.faults.append(f"{option} needs a value")
                    break
                value = rest.pop(0)
            self._take(option, value)
        for name, port in self.stage.inputs.items():
            if not (port.optional or port.many) and name not in self.inputs:
                self.faults.append(f"--input.{name} is missing ({port.description})")
        for name, port in self.stage.outputs.items():
            if name not in self.outputs:
                self.faults.append(f"--output.{name} is missing ({port.description})")
        if self.faults:
            self._complain()
        return Invocation(
            config=read_config(self.stage.config, self.config, self.changes),
            inputs=self.inputs,
            outputs=self.outputs,
            state=self.options.get("--state"),
            executor_input=self.options.get("--executor-input"),
        )

    def _take(self, option: str, value: str) -> None:
        group, _, name = option.partition(".")
        if option == "--config":
            self.config = value
        elif option == "--changes":
            self.changes = value
        elif option in ("--state", "--executor-input"):
            self.options[option] = value
        elif group in ("--input", "--mount"):
            self._take_input(option, name, Mount(value) if group == "--mount" else value)
        elif group == "--output" and name in self.stage.outputs:
            self.outputs[name] = value
        else:
            self._unknown(option)

    def _take_input(self, option: str, name: str, source: Source) -> None:
        port_name, _, key = name.partition(".")
        port = self.stage.inputs.get(port_name)
        if port is None or bool(key) != port.many:
            self._unknown(option)
        elif isinstance(source, Mount) and port.kind != "Dataset":
            self.faults.append(f"{option}: only a data set can be mounted; use --input.{name}")
        elif not port.many:
            self.inputs[port_name] = source
        elif not NAME.fullmatch(key):
            self.faults.append(f"{option}: the key {key!r} is not a lower-case identifier")
        else:
            members = self.inputs.setdefault(port_name, {})
            assert isinstance(members, dict)
            members[key] = source

    def _unknown(self, option: str) -> None:
        known = [
            "--config",
            "--changes",
            "--state",
            *(f"--output.{name}" for name in self.stage.outputs),
        ]
        for name, port in self.stage.inputs.items():
            known.append(f"--input.{name}" + (".KEY" if port.many else ""))
        self.faults.append(f"{option}: no such option{nearest(option, known)}")

    def _complain(self) -> NoReturn:
        faults = "\n".join(f"  {fault}" for fault in self.faults)
        raise UsageError(
            f"python -m {self.stage.module}: {len(self.faults)} fault(s) in the command line:\n"
            f"{faults}\n  --help lists the options"
        )
