"""The images of a plan's steps: by digest, so that what runs stays the same."""

import importlib.metadata
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pipelines
from components.core.errors import UsageError
from components.core.stage import Stage
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.plan import Plan

DIGESTS = Path(pipelines.__path__[0]).parent / "images" / "digests.json"
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")  # what a reference by digest ends with


def stages(plan: Plan) -> list[Stage[Any]]:
    """Return the stages of a plan, each once, by name."""
    by_name = {step.stage.name: step.stage for step in plan}
    return [by_name[name] for name in sorted(by_name)]


def default_image(name: str) -> str:
    """Return the reference of an image: the digest that was built last, else this version's tag."""
    if DIGESTS.is_file():
        digests: dict[str, str] = json.loads(DIGESTS.read_text("utf-8"))
        if name in digests:
            return digests[name]
    try:
        version = importlib.metadata.version("moco-transfer")
    except importlib.metadata.PackageNotFoundError:
        version = "latest"
    return f"moco-transfer/{name}:{version}"


def plan_images(plan: Plan, options: ClusterOptions, more: Sequence[str] = ()) -> dict[str, str]:
    """Return the reference of every image that a plan's steps run in, and of more, by its name."""
    names = sorted({*more, *(stage.image for stage in stages(plan))})
    return {name: options.images.get(name) or default_image(name) for name in names}


def require_digests(plan: Plan, options: ClusterOptions) -> None:
    """Make sure that what runs at full scale stays the same, and can be named years later.

    A tag can be moved between two steps of a run, and a step's cached outputs are
    taken over by the reference alone.

    Raises:
        UsageError: naming every image that is given by a tag.
    """
    if plan.scale != "full" or options.allow_tags:
        return
    images = plan_images(plan, options)
    tags = {name: reference for name, reference in images.items() if not DIGEST.search(reference)}
    if tags:
        listed = ", ".join(f"{name} is {reference}" for name, reference in tags.items())
        first = next(iter(tags))
        raise UsageError(
            f"a full-scale run needs its images by digest (REPOSITORY@sha256:…), but {listed}. "
            "`make images REGISTRY=HOST/PATH PUSH=1` builds them and records their digests; "
            f"--cluster images.{first}=REFERENCE names one; --cluster allow_tags=true takes tags"
        )
