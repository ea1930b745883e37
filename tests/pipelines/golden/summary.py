"""Tells what a compiled pipeline runs in lines that a reviewer can read, and how two differ."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from difflib import unified_diff
from functools import cache
from typing import Any

import yaml

from pipelines.recipes import ScaleName

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PARAMETER = re.compile(r"\{\{\$\.inputs\.parameters\['pipelinechannel--(\w+)'\]\}\}")
_SHORT = 60
"""Characters of a changed field that are told as they are."""
_LINES = 40
"""Changed lines that a failing test shows."""


def summarise(recipe: str, scale: ScaleName, text: str) -> str:
    """Say what a compiled pipeline runs: its parameters, containers, and tasks in their order."""
    definition, platform = yaml.load_all(text, LOADER)
    root = definition["root"]
    tasks = root["dag"]["tasks"]
    defaults = {
        name: str(value.get("defaultValue"))
        for name, value in root.get("inputDefinitions", {}).get("parameters", {}).items()
    }
    of_pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    size = f"{len(text.encode()):,} bytes, SHA-256 {hashlib.sha256(text.encode()).hexdigest()}"
    sized: set[str] = set()  # parameters that the containers tell
    containers = []
    for name, executor in definition["deploymentSpec"]["executors"].items():
        resources = _leaves(executor.get("container", {}).get("resources", {}))
        asked = [_PARAMETER.sub(r"\1", value) for _, value in resources]
        sized.update(asked)
        containers += _container(name, executor, of_pods.get(name, {}))
        told = [
            f"{parameter}={defaults[parameter]}" if parameter in defaults else f"{key}={parameter}"
            for (key, _), parameter in zip(resources, asked, strict=True)
        ]
        containers += [f"    {' '.join(told)}"] if told else []
    others = sorted(defaults.keys() - sized)
    return "\n".join(
        [
            f"{recipe}, {scale}: {size}",
            "  parameters " + " ".join(f"{name}={defaults[name]}" for name in others),
            *containers,
            *(line for name in _in_order(tasks) for line in _task(name, tasks[name])),
            "",
        ]
    )


def difference(kept: str, compiled: str, *, whole: tuple[str, str] | None = None) -> str | None:
    """Say in words how a pipeline differs from what is kept of it, or None.

    Args:
        kept: The summary that is kept.
        compiled: The summary of what was compiled.
        whole: Both texts, of a pipeline that is kept whole.
    """
    before, after = kept.strip().splitlines(), compiled.strip().splitlines()
    kept_whole, compiled_whole = (text.split("\n") for text in whole or ("", ""))
    if before == after and kept_whole == compiled_whole:
        return None
    said = _changes(before[1:], after[1:], "summary.txt")
    if not said and before != after:
        said = [
            "only the digest: the YAML differs in what the summary does not show; "
            "`make golden` and look at the difference of one that is kept whole"
        ]
    said += _changes(kept_whole, compiled_whole, "the whole pipeline")
    return "\n".join(said)


def _changes(before: list[str], after: list[str], name: str) -> list[str]:
    changed = list(unified_diff(before, after, f"{name}, kept", "compiled", n=0, lineterm=""))
    more = len(changed) - _LINES
    return changed[:_LINES] + ([f"... and {more} lines more"] if more > 0 else [])


def _in_order(tasks: Mapping[str, Any]) -> list[str]:
    """Order tasks by what they wait for, then by name."""

    @cache
    def depth(name: str) -> int:
        return 1 + max(map(depth, tasks[name].get("dependentTasks", [])), default=0)

    return sorted(tasks, key=lambda name: (depth(name), name))


def _container(name: str, executor: Mapping[str, Any], of_pod: Mapping[str, Any]) -> list[str]:
    """Tell of a container: its config by digest, for a stage's fields are not Kubeflow's."""
    name = name.removeprefix("exec-")
    if "importer" in executor:
        return [f"  container {name}: {json.dumps(executor['importer'], sort_keys=True)}"]
    container = executor["container"]
    words = container.get("args", [])
    config = words[words.index("--config") + 1] if "--config" in words else ""
    places = [words[place + 1] for place, word in enumerate(words) if word.startswith("--mount.")]
    volumes = [
        " ".join(filter(None, (volume["mountPath"], volume.get("sizeLimit"))))
        for volume in of_pod.get("emptyDirMounts", [])
    ]
    claims = [
        f"{claim['componentInputParameter']} at {claim['mountPath']}"
        for claim in of_pod.get("pvcMount", [])
    ]
    secrets = [
        " ".join(
            [
                secret["secretNameParameter"]["componentInputParameter"],
                "as",
                *(key["envVar"] for key in secret["keyToEnv"]),
            ]
        )
        for secret in of_pod.get("secretAsEnv", [])
    ]
    parts = {
        "config": [_digest(config)],
        "data": places,
        "claims": claims,
        "volumes": volumes,
        "secrets": secrets,
    }
    told = [f"{part} {', '.join(values)}" for part, values in parts.items() if values]
    return [f"  container {name}: {'; '.join([' '.join(container['command']), *told])}"]


def _task(name: str, task: Mapping[str, Any]) -> Iterator[str]:
    """Tell of a task: stage, image, the fields of the config that it changes, what it waits for."""
    inputs = task.get("inputs", {})
    parameters = inputs.get("parameters", {})
    told = [f"  task {name}: {task['componentRef']['name'].removeprefix('comp-')}"]
    if "image" in parameters:
        told.append(f"in {parameters['image']['componentInputParameter']}")
    changes = parameters.get("changes", {}).get("runtimeValue", {}).get("constant") or "{}"
    for field, value in json.loads(changes).items():
        new = json.dumps(value, separators=(",", ":"))
        told.append(f"{field}={new if len(new) <= _SHORT else _digest(new)}")
    made = {
        port: source["taskOutputArtifact"] for port, source in inputs.get("artifacts", {}).items()
    }
    after = {*task.get("dependentTasks", [])} - {one["producerTask"] for one in made.values()}
    sources = [
        f"{port} <- {one['producerTask']}.{one['outputArtifactKey']}" for port, one in made.items()
    ] + [f"after {one}" for one in sorted(after)]
    if sum(map(len, sources)) <= 2 * _SHORT:
        yield ", ".join([" ".join(told), *sources])
        return
    yield " ".join(told)
    yield from (f"    {source}" for source in sources)


def _leaves(value: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the names and values within a mapping of mappings."""
    return [
        leaf
        for key, inner in value.items()
        for leaf in (_leaves(inner) if isinstance(inner, Mapping) else [(key, str(inner))])
    ]


def _digest(text: str) -> str:
    return f"#{hashlib.sha256(text.encode()).hexdigest()[:12]}"
