"""A plan: the DAG of stages as data, checked when it is built."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.core.config import Config, nearest, parse_config
from components.core.errors import ConfigError, UsageError
from components.core.kind import ArtifactKind
from components.core.stage import NAME, Port, Stage, load_stage


@dataclass(frozen=True)
class Output:
    """An artifact that a step of the plan makes."""

    step: str
    port: str
    kind: ArtifactKind


@dataclass(frozen=True)
class Mounted:
    """A data set by name: a folder given with `--data NAME=FOLDER`, a PVC on the cluster."""

    name: str


@dataclass(frozen=True)
class Existing:
    """An artifact, or a single foreign file, that is there already.

    Attributes:
        uri: A path, or `s3://bucket/key`.
        kind: What it is.
        by_uri: Whether steps are told where it is, and fetch it themselves, though the platform
            could give it to them.
    """

    uri: str
    kind: ArtifactKind
    by_uri: bool = False

    @property
    def read_in_place(self) -> bool:
        """Whether a step is told where it is, and reads of it what it needs: it may be large."""
        return self.by_uri or self.kind == "Dataset"


Source = Output | Mounted | Existing
Binding = Source | Mapping[str, Source]


@dataclass(frozen=True)
class Step:
    """A stage with its config and the sources of its inputs."""

    name: str
    stage: Stage[Any]
    config: Config
    inputs: Mapping[str, Binding]

    def output(self, port: str) -> Output:
        """Return the artifact that it makes.

        Raises:
            KeyError: if the stage has no such output.
        """
        return Output(self.name, port, self.stage.outputs[port].kind)

    def sources(self) -> Iterator[tuple[str, Source]]:
        """Yield every input as `(PORT or PORT.KEY, source)`."""
        for port, bound in self.inputs.items():
            if isinstance(bound, Mapping):
                yield from ((f"{port}.{key}", source) for key, source in bound.items())
            else:
                yield port, bound

    def rebound(self, source_of: Callable[[Source], Source]) -> dict[str, Binding]:
        """Return its inputs with another source in place of each."""
        return {
            port: {key: source_of(source) for key, source in bound.items()}
            if isinstance(bound, Mapping)
            else source_of(bound)
            for port, bound in self.inputs.items()
        }

    @property
    def upstream(self) -> set[str]:
        """Names of the steps whose outputs this one reads."""
        return {source.step for _, source in self.sources() if isinstance(source, Output)}


class NameTakenError(ValueError):
    """Two different steps of a plan would have one name.

    Attributes:
        name: That name.
    """

    def __init__(self, plan: str, name: str) -> None:
        super().__init__(f"plan {plan}: two different steps are called {name}")
        self.name = name


@dataclass
class Plan:
    """Steps in an order in which they can run.

    Attributes:
        name: A recipe's name.
        scale: `full` or `digits`.
        steps: By name.
    """

    name: str
    scale: str = "full"
    steps: dict[str, Step] = field(default_factory=dict)

    def add(self, stage: Stage[Any], name: str, config: Config, **inputs: Binding) -> Step:
        """Add a step; one that does the same already is returned instead, whatever its name.

        So recipes share data, pre-trainings and conversions without knowing of each other.

        Args:
            stage: What runs.
            name: Lower-case with underscores; names the step's folder and task.
            config: Of the stage's config type.
            inputs: Sources by port; a mapping of sources for a `many` port.

        Raises:
            ValueError: naming what does not fit the stage's declaration. A recipe
                is code, so this is a defect of the recipe and not of its user.
        """
        step = Step(name, stage, config, inputs)
        for known in self:
            if (known.stage, known.config, known.inputs) == (stage, config, inputs):
                return known
        if name in self.steps:
            raise NameTakenError(self.name, name)
        faults = list(self._faults(step))
        if faults:
            raise ValueError(f"plan {self.name}, step {name}: " + "; ".join(faults))
        self.steps[name] = step
        return step

    def downstream(self, name: str) -> list[str]:
        """Return a step and all that depend on it, in the plan's order."""
        reached = {name}
        for step in self.steps.values():
            if step.upstream & reached:
                reached.add(step.name)
        return [step for step in self.steps if step in reached]

    def step(self, name: str) -> Step:
        """Return a step by name.

        Raises:
            UsageError: if there is none, naming the nearest.
        """
        if name not in self.steps:
            raise UsageError(f"no step is called {name!r}{nearest(name, self.steps)}")
        return self.steps[name]

    def mounts(self) -> list[str]:
        """Return the names of the mounted data sets."""
        names = {s.name for step in self for _, s in step.sources() if isinstance(s, Mounted)}
        return sorted(names)

    def layouts(self) -> list[tuple[str, str]]:
        """Return each mounted data set with each layout that a step reads it in."""
        layouts = {
            (source.name, layout)
            for step in self
            for port, layout in step.config.layouts().items()
            if isinstance(source := step.inputs.get(port), Mounted)
        }
        return sorted(layouts)

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps.values())

    def to_json(self) -> str:
        """Return the plan as JSON text, for `from_json`."""
        steps = [
            {
                "name": step.name,
                "stage": step.stage.name,
                "config": json.loads(step.config.to_json()),
                "inputs": {
                    port: {key: _as_json(source) for key, source in bound.items()}
                    if isinstance(bound, Mapping)
                    else _as_json(bound)
                    for port, bound in step.inputs.items()
                },
            }
            for step in self
        ]
        return json.dumps({"name": self.name, "scale": self.scale, "steps": steps}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Read a plan, checking it like a new one.

        Raises:
            ConfigError: if it is no plan, or does not fit the stages of this version.
        """
        try:
            document = json.loads(text)
            plan = cls(document["name"], document["scale"])
            for step in document["steps"]:
                stage = load_stage(step["stage"])
                inputs = {
                    port: _from_json(bound)
                    if "source" in bound
                    else {key: _from_json(source) for key, source in bound.items()}
                    for port, bound in step["inputs"].items()
                }
                plan.add(stage, step["name"], parse_config(stage.config, step["config"]), **inputs)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"not a plan of this version: {error}") from None
        return plan

    def _faults(self, step: Step) -> Iterator[str]:
        if not NAME.fullmatch(step.name):
            yield "the name is not a lower-case identifier"
        if not isinstance(step.config, step.stage.config):
            yield f"{step.stage.name} takes a {step.stage.config.__name__}"
        for bound in step.inputs:
            if bound not in step.stage.inputs:
                yield f"no input {bound!r}{nearest(bound, step.stage.inputs)}"
        for name, port in step.stage.inputs.items():
            if name not in step.inputs and not (port.optional or port.many):
                yield f"input {name} is not bound"
            elif isinstance(step.inputs.get(name), Mapping) != port.many and name in step.inputs:
                yield f"input {name} takes {'a mapping' if port.many else 'one source'}"
        for name, source in step.sources():
            port_name, _, key = name.partition(".")
            if port_name in step.stage.inputs:
                yield from self._source_faults(name, source, step.stage.inputs[port_name])
            if key and not NAME.fullmatch(key):
                yield f"the key {key!r} of {port_name} is not a lower-case identifier"

    def _source_faults(self, name: str, source: Source, port: Port) -> Iterator[str]:
        if isinstance(source, Mounted):
            if port.kind != "Dataset":
                yield f"input {name}: only a Dataset can be mounted, not a {port.kind}"
            return
        if isinstance(source, Output):
            if source.step not in self.steps:
                yield f"input {name}: no earlier step is called {source.step!r}"
            elif source.port not in self.steps[source.step].stage.outputs:
                yield f"input {name}: step {source.step} has no output {source.port!r}"
        if source.kind != port.kind:
            yield f"input {name} takes a {port.kind}, not a {source.kind}"


def read_plan(path: Path) -> Plan:
    """Read a plan from a file."""
    return Plan.from_json(path.read_text("utf-8"))


def _as_json(source: Source) -> dict[str, Any]:
    fields = {name: value for name, value in vars(source).items() if value is not False}
    return {"source": type(source).__name__.lower(), **fields}


def _from_json(document: Mapping[str, Any]) -> Source:
    types = {"output": Output, "mounted": Mounted, "existing": Existing}
    fields = {key: value for key, value in document.items() if key != "source"}
    source: Source = types[document["source"]](**fields)
    return source
