"""Checks that the parts of a run that is too large for one workflow can begin each other."""

from collections.abc import Iterator

from components.core.errors import ExitCode
from pipelines.backends.findings import Finding
from pipelines.backends.kubeflow.cut import cut_plan
from pipelines.backends.kubeflow.doctor.findings import failed, ok, skipped
from pipelines.backends.kubeflow.doctor.pods import PodTask, run_pod
from pipelines.backends.kubeflow.doctor.site import Site
from pipelines.backends.kubeflow.images import plan_images
from pipelines.backends.kubeflow.next_parts import ACCESS_LABEL, NextPartsConfig, probe_argv
from pipelines.backends.kubeflow.parameters import NEXT_PARTS_IMAGE, image_parameter
from pipelines.backends.kubeflow.weights import about


def next_parts(site: Site) -> Iterator[Finding]:
    """Check that a pod may start runs: without that, the first part of a run is its last."""
    assert site.plan is not None
    options, weights = site.options, about(site.plan)
    if weights.whole <= options.workflow_size:
        yield ok(f"one workflow holds the {len(site.plan.steps)} steps")
        return
    count = len(cut_plan(site.plan, weights, options.workflow_size, options.root))
    if not site.pods:
        yield skipped(f"a run has about {count} parts; whether pods may start them is left out")
        return
    config = NextPartsConfig.of(1, options)
    images = plan_images(site.plan, options, [NEXT_PARTS_IMAGE])
    image = site.parameters.get(image_parameter(NEXT_PARTS_IMAGE), images[NEXT_PARTS_IMAGE])
    task = PodTask(image, ["python", *probe_argv(config)], labels={ACCESS_LABEL: "true"})
    ended = run_pod(site, task)
    answer = ended.answer("words")
    if answer and answer["ok"]:
        yield ok(f"a run has about {count} parts; from a pod, {answer['words']}")
        return
    known = ended.code in list(ExitCode)
    yield failed(
        f"a run has about {count} parts, which no pod could begin: "
        f"{answer['words'] if answer else ended.words()}",
        "--cluster server_in_cluster=http://HOST:PORT, as pods reach the pipeline server",
        f"on a Kubeflow for many users, a PodDefault that gives pods of {ACCESS_LABEL} a token",
        f"kubectl describe networkpolicy --namespace {site.namespace}",
        "runs of one workflow each: fewer trials, rows or tables",
        code=ExitCode(ended.code) if known else ExitCode.LOST_CLUSTER,
    )
