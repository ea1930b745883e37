"""Compiles a plan whose workflow would be too large: one pipeline for each part of it."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.core.errors import UsageError
from pipelines.backends.kubeflow.compile import Compiled, compile_plan
from pipelines.backends.kubeflow.cut import Cut, cut_plan
from pipelines.backends.kubeflow.names import pipeline_name
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.plan import Plan

_NEXT_PARTS = 9_000
"""Bytes of a workflow that are not for steps."""


@dataclass(frozen=True)
class CompiledPart:
    """A part of a plan.

    Attributes:
        number: From 1.
        cut: Its steps, and what they read of other parts.
        pipeline: The compiled pipeline.
        compiled: What is known of that.
    """

    number: int
    cut: Cut
    pipeline: str
    compiled: Compiled


def compile_parts(
    plan: Plan,
    whole: Compiled,
    options: ClusterOptions,
    *,
    states: Mapping[str, str] | None = None,
    first: int = 1,
    most: int | None = None,
) -> list[CompiledPart]:
    """Cut a plan into parts that the cluster takes, and compile them.

    Args:
        plan: The plan.
        whole: What is known of it, compiled as a whole.
        options: Of the cluster.
        states: URLs of in-flight state by step.
        first: Number of the first part.
        most: Steps on GPUs that a part may have.

    Raises:
        UsageError: if a part cannot be cut further, and is still too large.
    """
    root = f"{options.root.rstrip('/')}/{pipeline_name(plan)}"
    room = options.workflow_size - _NEXT_PARTS
    while True:
        cuts = cut_plan(plan, whole.weights, room, root, most)
        parts = [_compile_part(n, cut, options, states) for n, cut in enumerate(cuts, first)]
        large = [part.compiled for part in parts if not part.compiled.fits(options)]
        if not large:
            return parts
        room = round(room * 0.9)
        if room < options.workflow_size // 2:
            raise UsageError(
                f"cut into parts, it is still too large: {large[0].too_large(options)}"
            )


def _compile_part(
    number: int, cut: Cut, options: ClusterOptions, states: Mapping[str, str] | None
) -> CompiledPart:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "part.yaml")
        compiled = compile_plan(cut.plan, file, options, states, part=number)
        return CompiledPart(number, cut, file.read_text("utf-8"), compiled)
