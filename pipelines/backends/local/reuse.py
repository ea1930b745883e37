"""Decides whether a step's artifacts exist already, from an index over all runs of a folder.

Below `RUNS/.reuse/STAGE/` there is one file for each combination of stage, config,
inputs, code and image that has been run; it says where the artifacts are. It is
only a hint: whatever it points to is verified against its manifest.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from components.core.config import canonical_json
from components.core.errors import DataError
from components.core.manifest import file_sha256, read_manifest, verify
from components.core.version import code_of, image
from pipelines.plan import Output, Step
from pipelines.runs.folder import Run
from pipelines.runs.record import write_record

INDEX = ".reuse"


class Ingredients(BaseModel):
    """All that a step's artifacts depend on."""

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    stage: str
    config: dict[str, JsonValue]
    inputs: dict[str, str]
    """Digest of each input, by `PORT` or `PORT.KEY`."""
    code: str
    image: str

    @cached_property
    def key(self) -> str:
        """Digest of all."""
        return _hash(self.model_dump())

    def first_difference(self, earlier: "Ingredients") -> str:
        """Say in words in what this differs from an earlier one."""
        for path, old, new in _differences(earlier.config, self.config, "config."):
            return f"{path} was {_shown(old)}, is {_shown(new)}"
        for name in sorted({*self.inputs, *earlier.inputs}):
            if name not in earlier.inputs:
                return f"input {name} is new"
            if name not in self.inputs:
                return f"input {name} is gone"
            if self.inputs[name] != earlier.inputs[name]:
                return f"input {name} changed"
        if self.code != earlier.code:
            return f"the code of {self.stage} changed"
        return f"the image was {earlier.image}, is {self.image}"


class ReuseEntry(BaseModel):
    """One line of the index: what was made of some ingredients, and where it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ingredients: Ingredients
    scale: str
    outputs: dict[str, str]
    """Digest of each output."""
    places: tuple[str, ...]
    """`RUN/STEP`, the one that made them first."""
    seconds: float
    gpus: int
    size: int
    """Bytes of all outputs."""
    finished: datetime


class ReuseIndex:
    """The index over all runs of a folder."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self._entries: dict[str, list[ReuseEntry]] = {}

    def find(self, ingredients: Ingredients, step: Step) -> tuple[Run, str] | None:
        """Find a run and a step of it whose artifacts have the same ingredients, all intact."""
        entry = self._read(self._path(ingredients))
        if entry is None:
            return None
        for place in entry.places:
            run_id, _, name = place.partition("/")
            run = Run(self.runs / run_id)
            if self._intact(run, name, step, entry.outputs):
                return run, name
        return None

    def digests(self, ingredients: Ingredients) -> dict[str, str]:
        """Return the digests of the artifacts that some ingredients gave, by output port."""
        entry = self._read(self._path(ingredients))
        return entry.outputs if entry else {}

    def record(self, ingredients: Ingredients, run: Run, step: Step, gpus: int) -> None:
        """Enter the artifacts of a finished step."""
        path = self._path(ingredients)
        outputs = output_digests(run, step)
        place = f"{run.id}/{step.name}"
        before = self._read(path)
        same = before is not None and before.outputs == outputs
        other_places = [p for p in before.places if p != place] if before and same else []
        status = run.status(step.name)
        measured = status.state == "finished" or before is None
        entry = ReuseEntry(
            ingredients=ingredients,
            scale=run.record.scale,
            outputs=outputs,
            places=(*other_places, place),
            seconds=(status.seconds or 0.0) if measured or before is None else before.seconds,
            gpus=gpus if measured or before is None else before.gpus,
            size=_size(run, step),
            finished=datetime.now(UTC),
        )
        write_record(path, entry)
        self._entries.pop(ingredients.stage, None)

    def why_not(self, ingredients: Ingredients, step: str) -> str:
        """Say why nothing earlier can be reused: the first difference from the most alike."""
        entries = self.entries(ingredients.stage)
        if not entries:
            return f"{ingredients.stage} has not run here before"
        if any(entry.ingredients.key == ingredients.key for entry in entries):
            return "its artifacts are gone or damaged"

        def likeness(entry: ReuseEntry) -> tuple[bool, int, datetime]:
            named_alike = any(place.partition("/")[2] == step for place in entry.places)
            equal = len(list(_differences(entry.ingredients.config, ingredients.config)))
            return named_alike, -equal, entry.finished

        return ingredients.first_difference(max(entries, key=likeness).ingredients)

    def entries(self, stage: str) -> list[ReuseEntry]:
        """Return all entries of a stage."""
        if stage not in self._entries:
            read = (self._read(path) for path in (self.runs / INDEX / stage).glob("*.json"))
            self._entries[stage] = [entry for entry in read if entry is not None]
        return self._entries[stage]

    def _path(self, ingredients: Ingredients) -> Path:
        return self.runs / INDEX / ingredients.stage / f"{ingredients.key}.json"

    def _read(self, path: Path) -> ReuseEntry | None:
        try:
            return ReuseEntry.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None  # a hint of another version is no hint

    def _intact(self, run: Run, name: str, step: Step, digests: Mapping[str, str]) -> bool:
        try:
            paths = run.artifacts(name, step.stage.outputs)
            return {port: _verified(path) for port, path in paths.items()} == digests
        except (DataError, OSError):
            return False


def ingredients_of(step: Step, inputs: Mapping[str, str]) -> Ingredients:
    """Gather what a step's artifacts depend on, given the digests of its inputs."""
    config: dict[str, Any] = json.loads(step.config.to_json())
    return Ingredients(
        stage=step.stage.name,
        config=config,
        inputs=dict(inputs),
        code=code_of(step.stage, step.config).digest,
        image=image(*step.config.requires()),
    )


def state_key_of(step: Step, inputs: Mapping[str, str]) -> str:
    """Identify what a step's in-flight state belongs to, given the digests of its inputs.

    Whether the code fits, the stage decides; what may change in a resume is left out.
    """
    return _hash(
        {"stage": step.stage.name, "config": step.config.identity(), "inputs": dict(inputs)}
    )


def outputs_intact(run: Run, step: Step) -> bool:
    """Say whether a step's artifacts are there and match their manifests."""
    try:
        for path in run.artifacts(step.name, step.stage.outputs).values():
            _verified(path)
    except (DataError, OSError):
        return False
    return True


def output_digests(run: Run, step: Step) -> dict[str, str]:
    """Return the digest of each output as its manifest states it."""
    return {
        port: file_sha256(path) if path.is_file() else read_manifest(path).digest
        for port, path in run.artifacts(step.name, step.stage.outputs).items()
    }


def output_digest(run: Run, output: Output) -> str:
    """Return the digest of an artifact of a run as its manifest states it."""
    return read_manifest(run.artifact(output.step, output.port, output.kind)).digest


def remove_outputs(run: Run, step: Step) -> None:
    """Clear the place of a step's outputs; its log and its in-flight state stay."""
    for path in run.artifacts(step.name, step.stage.outputs).values():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def link_outputs(source: Run, name: str, run: Run, step: Step) -> None:
    """Give a step the artifacts of another run's: hard links, or copies across file systems."""
    remove_outputs(run, step)
    targets = run.artifacts(step.name, step.stage.outputs)
    for port, origin in source.artifacts(name, step.stage.outputs).items():
        target = targets[port]
        unfinished = target.with_name(f".{target.name}.linking")
        target.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_file():
            _link(origin, unfinished)
        else:
            shutil.rmtree(unfinished, ignore_errors=True)
            shutil.copytree(origin, unfinished, copy_function=_link)
        unfinished.replace(target)


def _link(origin: str | Path, target: str | Path) -> None:
    Path(target).unlink(missing_ok=True)
    try:
        os.link(origin, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(origin, target)


def _verified(path: Path) -> str:
    return file_sha256(path) if path.suffix == ".html" else verify(path).digest


def _size(run: Run, step: Step) -> int:
    paths = run.artifacts(step.name, step.stage.outputs).values()
    return sum(p.stat().st_size if p.is_file() else read_manifest(p).size for p in paths)


def _hash(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _differences(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{prefix}{name}.")
        elif before != after:
            yield f"{prefix}{name}", before, after


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
