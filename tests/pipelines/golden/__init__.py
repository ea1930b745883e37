"""The compiled pipelines of all recipes, kept as files: a change of one is seen in review.

A few are kept whole, one for each kind of thing that can change; of every pipeline a digest and a
summary of what it runs is in `summary.txt`. `make golden` compiles them again.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml

from pipelines.backends.cluster import ClusterOptions
from pipelines.backends.kfp import compile_plan
from pipelines.recipes import Options, ScaleName, build_plan, load_recipe, recipe_names

FOLDER = Path(__file__).parent
SUMMARY = FOLDER / "summary.txt"
# The default is what was built last here.
CLUSTER = ClusterOptions(
    images={name: f"moco-transfer/{name}:golden" for name in ("torch", "detectron2")}
)
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
SCALES: tuple[ScaleName, ...] = get_args(ScaleName)
WHOLE: Mapping[tuple[str, ScaleName], str] = {
    ("linear", "full"): "GPUs, mounted data, a pre-training and what is trained from it",
    ("densepose", "full"): "the image of detectron2, and data for two trainings",
    ("shuffling_bn", "digits"): "the miniature without GPUs, a figure, variants of one stage",
    ("segmentation", "digits"): "data that a step writes, a table of several columns",
}
"""What is kept whole, and for what."""


def cases() -> list[tuple[str, ScaleName]]:
    """Return every recipe at every scale."""
    return [(recipe, scale) for recipe in recipe_names() for scale in SCALES]


def golden(recipe: str, scale: ScaleName) -> Path:
    """Return the file of a recipe at a scale that is kept whole."""
    return FOLDER / (f"{recipe}.yaml" if scale == "full" else f"{recipe}.{scale}.yaml")


def compile_recipe(recipe: str, scale: ScaleName, path: Path) -> str:
    """Compile a recipe as it stands, with one trial: the others differ in nothing but the seed."""
    plan = build_plan(load_recipe(recipe), Options(scale=scale, trials=1))
    compile_plan(plan, path, CLUSTER)
    return path.read_text("utf-8")


def summarise(recipe: str, scale: ScaleName, text: str) -> str:
    """Say what a compiled pipeline runs, a line for each parameter, container and task."""
    definition, platform = yaml.load_all(text, _LOADER)
    root = definition["root"]
    digest = hashlib.sha256(text.encode()).hexdigest()
    lines = [f"{recipe}, {scale}: {len(text.encode()):,} bytes, SHA-256 {digest}"]
    defaults = {
        name: value.get("defaultValue")
        for name, value in root.get("inputDefinitions", {}).get("parameters", {}).items()
    }
    lines.append("  parameters " + " ".join(f"{name}={defaults[name]}" for name in defaults))
    of_pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for name, executor in definition["deploymentSpec"]["executors"].items():
        lines.append("  container " + _container(name, executor, of_pods.get(name, {})))
    for name, task in root["dag"]["tasks"].items():
        lines.append("  task " + _task(name, task))
    return "\n".join(lines) + "\n"


def summaries() -> Iterator[str]:
    """Yield what is kept of each pipeline in the summary."""
    yield from SUMMARY.read_text("utf-8").split("\n\n")


def regenerate() -> None:
    """Compile all recipes again."""
    told = []
    for path in FOLDER.glob("*.yaml"):
        path.unlink()
    for recipe, scale in cases():
        path = golden(recipe, scale)
        told.append(summarise(recipe, scale, compile_recipe(recipe, scale, path)))
        if (recipe, scale) not in WHOLE:
            path.unlink()
    SUMMARY.write_text("\n".join(told), "utf-8")


def _container(name: str, executor: Mapping[str, Any], of_pod: Mapping[str, Any]) -> str:
    """Tell of a container: its config by digest, for a stage's fields are not Kubeflow's."""
    if "importer" in executor:
        return f"{name}: imports {json.dumps(executor['importer'], sort_keys=True)}"
    container = executor["container"]
    words = container.get("args", [])
    config = words[words.index("--config") + 1] if "--config" in words else ""
    digest = hashlib.sha256(config.encode()).hexdigest()[:12]
    mounts = [words[place + 1] for place, word in enumerate(words) if word.startswith("--mount.")]
    secrets = sum(len(secret["keyToEnv"]) for secret in of_pod.get("secretAsEnv", []))
    volumes = [volume["mountPath"] for volume in of_pod.get("emptyDirMounts", [])]
    parts = [
        " ".join(container["command"]),
        f"config {digest}",
        f"mounts {' '.join(mounts)}" if mounts else "",
        f"volumes {' '.join(volumes)}" if volumes else "",
        f"secrets {secrets}" if secrets else "",
        "GPUs" if "accelerator" in container.get("resources", {}) else "",
    ]
    return f"{name}: {', '.join(filter(None, parts))}"


def _task(name: str, task: Mapping[str, Any]) -> str:
    inputs = task.get("inputs", {})
    changes = inputs.get("parameters", {}).get("changes", {})
    changed = changes.get("runtimeValue", {}).get("constant", "")
    artifacts = inputs.get("artifacts", {}).items()
    sources = [
        f"{port}={made['producerTask']}.{made['outputArtifactKey']}"
        for port, made in ((port, source["taskOutputArtifact"]) for port, source in artifacts)
    ]
    told = f"{name}: {task['componentRef']['name']}"
    if changed not in ("", "{}"):
        told += f" {changed}"
    after = sorted(
        {*task.get("dependentTasks", [])}
        - {source.split("=")[1].rpartition(".")[0] for source in sources}
    )
    return " ".join(
        [told, *(["<-", *sources] if sources else []), *(["after", *after] if after else [])]
    )
