"""Compiling a plan, against the same pipeline written by hand with kfp's API."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from kfp import compiler, dsl, kubernetes

from components.convert import STAGE as CONVERT
from components.convert import ConvertConfig
from components.digits import STAGE as DIGITS
from components.pretrain import STAGE as PRETRAIN
from components.pretrain import PretrainConfig
from components.rendering.config import DigitsConfig
from pipelines.backends.kubeflow.compile import compile_plan
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.plan import Plan

SIZES = (13, 50, 200)  # container tasks
ROUNDS = {13: 9, 50: 5, 200: 3}
GOAL = round(1 / 1.2, 2)  # ours takes at most 1.2 times as long
CLUSTER = ClusterOptions(images={"torch": "moco-transfer/torch:1"})


def run() -> list[dict[str, Any]]:
    """Compile both in turns, and compare their CPU times."""
    with tempfile.TemporaryDirectory() as name:
        return [_compare(Path(name), size) for size in SIZES]


def pretrainings(size: int) -> Plan:
    """Return a plan of a number of tasks: one data set, then encoders and their conversions."""
    plan = Plan("pretrainings", "digits")
    data = plan.add(DIGITS, "digits", DigitsConfig())
    while len(plan.steps) < size:
        seed = len(plan.steps) // 2
        config = PretrainConfig(seed=seed).miniature()
        step = plan.add(PRETRAIN, f"pretrain_{seed}", config, data=data.output("imagenet"))
        if len(plan.steps) < size:
            plan.add(
                CONVERT,
                f"convert_{seed}",
                ConvertConfig().miniature(),
                checkpoint=step.output("encoder"),
            )
    return plan


def _compare(folder: Path, size: int) -> dict[str, Any]:
    plan = pretrainings(size)
    ways: dict[str, Callable[[Path], object]] = {
        "ours": lambda path: compile_plan(plan, path, CLUSTER),
        "bare": lambda path: _compile_by_hand(plan, path),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    # In turns, so that whatever else the machine does falls on both; the first round warms up.
    for turn in range(ROUNDS[size] + 1):
        for name, write in ways.items():
            started = time.process_time()
            write(folder / f"{name}.yaml")
            if turn:
                seconds[name].append(time.process_time() - started)
    assert _edges(folder / "ours.yaml") == _edges(folder / "bare.yaml")
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "name": f"compile {size} tasks",
        "ratio": round(median["bare"] / median["ours"], 2),
        "goal": GOAL,
        "detail": f"the same pipeline by hand with kfp {median['bare']:.2f} s, "
        f"ours {median['ours']:.2f} s of CPU",
    }


def _edges(path: Path) -> list[tuple[str, list[str]]]:
    """Return the DAG of a compiled pipeline: each task's display name and what it follows."""
    spec = next(yaml.load_all(path.read_text("utf-8"), yaml.CSafeLoader))
    tasks = spec["root"]["dag"]["tasks"]
    names = {key: task["taskInfo"]["name"] for key, task in tasks.items()}
    return sorted(
        (names[key], sorted(names[one] for one in task.get("dependentTasks", ())))
        for key, task in tasks.items()
    )


@dsl.container_component  # type: ignore[untyped-decorator]
def digits(config: str, imagenet: dsl.Output[dsl.Dataset], inaturalist: dsl.Output[dsl.Dataset]):  # type: ignore[no-untyped-def]
    """Write the data set."""
    return dsl.ContainerSpec(
        image="moco-transfer/torch:1",
        command=["python", "-m", "components.digits"],
        args=[
            *("--config", config),
            *("--output.imagenet", imagenet.path),
            *("--output.inaturalist", inaturalist.path),
            *("--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER),
        ],
    )


@dsl.container_component  # type: ignore[untyped-decorator]
def pretrain(  # type: ignore[no-untyped-def]
    config: str,
    data: dsl.Input[dsl.Dataset],
    encoder: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
):
    """Pre-train an encoder."""
    return dsl.ContainerSpec(
        image="moco-transfer/torch:1",
        command=["python", "-m", "components.pretrain"],
        args=[
            *("--config", config),
            *("--input.data", data.path),
            *("--output.encoder", encoder.path),
            *("--output.metrics", metrics.path),
            *("--state", f"{encoder.uri}.state"),
            *("--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER),
        ],
    )


@dsl.container_component  # type: ignore[untyped-decorator]
def convert(  # type: ignore[no-untyped-def]
    config: str, checkpoint: dsl.Input[dsl.Model], backbone: dsl.Output[dsl.Model]
):
    """Convert an encoder."""
    return dsl.ContainerSpec(
        image="moco-transfer/torch:1",
        command=["python", "-m", "components.convert"],
        args=[
            *("--config", config),
            *("--input.checkpoint", checkpoint.path),
            *("--output.backbone", backbone.path),
            *("--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER),
        ],
    )


def _compile_by_hand(plan: Plan, path: Path) -> None:
    configs = {step.name: step.config.to_json() for step in plan}

    @dsl.pipeline(name="pretrainings")  # type: ignore[untyped-decorator]
    def pipeline(  # type: ignore[no-untyped-def]
        image: str = "moco-transfer/torch:1",
        cpus: str = "1",
        memory: str = "4Gi",
        secret: str = "mlpipeline-minio-artifact",
    ):
        def dress(task: Any, name: str) -> Any:
            task.set_display_name(name)
            task.set_caching_options(True)
            task.set_container_image(image)
            task.set_cpu_limit(cpus)
            task.set_memory_limit(memory)
            task.set_retry(3, "30s", 2.0, "1209600s")
            task.set_env_variable("HOME", "/tmp")
            task.set_env_variable("USER", "moco")
            kubernetes.set_security_context(task, 1000, 1000, True)
            kubernetes.empty_dir_mount(task, "scratch", "/tmp")
            for key, value in (("recipe", plan.name), ("scale", plan.scale), ("step", name)):
                kubernetes.add_pod_label(task, f"moco-transfer/{key}", value)
            return task

        data = dress(digits(config=configs["digits"]), "digits")
        for seed in range(len(configs) // 2):
            name = f"pretrain_{seed}"
            encoder = dress(pretrain(config=configs[name], data=data.outputs["imagenet"]), name)
            encoder.set_env_variable("MOCO_S3_ENDPOINT", "http://seaweedfs.kubeflow:9000")
            kubernetes.empty_dir_mount(encoder, "shared-memory", "/dev/shm", "Memory", "1Gi")
            fields = {"accesskey": "AWS_ACCESS_KEY_ID", "secretkey": "AWS_SECRET_ACCESS_KEY"}
            kubernetes.use_secret_as_env(encoder, secret, fields)
            name = f"convert_{seed}"
            if name in configs:
                checkpoint = encoder.outputs["encoder"]
                dress(convert(config=configs[name], checkpoint=checkpoint), name)

    compiler.Compiler().compile(pipeline, str(path))
