"""Which image a step runs in, and what is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from components.core.config import apply_settings
from components.core.errors import UsageError
from components.core.stage import Stage
from pipelines.backends.kubeflow.images import default_image, plan_images, require_digests
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.backends.kubeflow.parameters import pipeline_parameters
from pipelines.plan import Plan

DIGEST = f"registry.example/me/moco-transfer-torch@sha256:{'0123456789abcdef' * 4}"


@pytest.fixture
def digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where the digests of what was built last would be; there are none."""
    path = tmp_path / "digests.json"
    monkeypatch.setattr("pipelines.backends.kubeflow.images.DIGESTS", path)
    return path


def one_step(stage: Stage[Any], scale: str = "full") -> Plan:
    plan = Plan("one", scale)
    plan.add(stage, "first", stage.config())
    return plan


def test_an_image_is_the_one_given_then_the_one_built_last_then_this_version(
    digests: Path, toy: Stage[Any]
) -> None:
    plan = one_step(toy)
    assert default_image("torch").startswith("moco-transfer/torch:")

    digests.write_text(json.dumps({"torch": DIGEST}))
    assert plan_images(plan, ClusterOptions()) == {"torch": DIGEST}
    given = ClusterOptions(images={"torch": "mine/torch:1"})
    assert plan_images(plan, given) == {"torch": "mine/torch:1"}
    (parameter,) = (p for p in pipeline_parameters(plan, given) if p.name == "image_torch")
    assert parameter.default == "mine/torch:1"


@pytest.mark.usefixtures("digests")
@pytest.mark.parametrize(
    "reference",
    [
        "mine/torch:1",
        "mine/torch",
        "registry.example:5000/mine/torch:sha256",
        "mine/torch@sha256:0123",
        f"{DIGEST}:tag",
    ],
)
def test_a_full_scale_run_refuses_a_tag(reference: str, toy: Stage[Any]) -> None:
    options = ClusterOptions(images={"torch": reference})

    with pytest.raises(UsageError) as refused:
        require_digests(one_step(toy), options)

    assert f"torch is {reference}" in str(refused.value)
    assert "make images REGISTRY=HOST/PATH PUSH=1" in str(refused.value)


@pytest.mark.usefixtures("digests")
def test_every_tag_is_named_and_a_digest_is_not(toy: Stage[Any]) -> None:
    plan = one_step(toy)
    for image in ("detectron2", "other"):
        stage = dataclasses.replace(toy, name=f"toy.{image}", image=image)
        plan.add(stage, f"in_{image}", stage.config())

    with pytest.raises(UsageError, match=r"but detectron2 is \S+, other is \S+\. ") as refused:
        require_digests(plan, ClusterOptions(images={"torch": DIGEST}))

    assert "images.detectron2=REFERENCE" in str(refused.value)
    assert DIGEST not in str(refused.value)


@pytest.mark.usefixtures("digests")
def test_digests_the_miniature_and_who_says_so_pass(toy: Stage[Any]) -> None:
    require_digests(one_step(toy), ClusterOptions(images={"torch": DIGEST}))
    require_digests(one_step(toy, "digits"), ClusterOptions())
    require_digests(one_step(toy), ClusterOptions(allow_tags=True))


@pytest.mark.usefixtures("digests")
def test_the_ways_out_that_the_message_names_work(toy: Stage[Any]) -> None:
    plan = one_step(toy)

    require_digests(plan, apply_settings(ClusterOptions(), {"images.torch": DIGEST}))
    require_digests(plan, apply_settings(ClusterOptions(), {"allow_tags": "true"}))
