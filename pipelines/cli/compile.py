"""`moco compile`: a recipe as a Kubeflow pipeline."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from components.core.errors import UsageError
from pipelines.cli.options import Claims, ClusterValues, RecipeName, RecipeOptions, mounted, pairs
from pipelines.cli.output import say, tell
from pipelines.words import number


def compile_recipe(
    recipe: RecipeName,
    /,
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"), help="The YAML file to write.")],
    options: RecipeOptions = RecipeOptions(),  # noqa: B008 - frozen
    data: Claims = (),
    cluster: ClusterValues = (),
) -> None:
    """Write a recipe as a Kubeflow pipeline.

    One that is too large for one workflow of the cluster becomes several files, in an order in
    which they can run: PIPELINE-1.yaml, PIPELINE-2.yaml. `moco submit` starts them in turn.
    """
    from pipelines.backends.kubeflow.connection import cluster_options
    from pipelines.backends.kubeflow.images import require_digests

    given = options.data(pairs("--data", data, "NAME=CLAIM"))
    built = options.plan(recipe, given)
    chosen = cluster_options(cluster, ask=False)
    chosen = chosen.derive(claims={**chosen.claims, **mounted(built, given)})
    require_digests(built, chosen)
    try:
        from pipelines.backends.kubeflow.compile import compile_plan
        from pipelines.backends.kubeflow.compile_parts import compile_parts
    except ModuleNotFoundError as error:
        raise UsageError(f"compiling needs {error.name}: install moco-transfer[kubeflow]") from None
    compiled = compile_plan(built, output, chosen)
    if compiled.fits(chosen):
        say(f"{output}: {number(len(built.steps), 'step')} of {built.name} at {built.scale} scale")
        return
    output.unlink()
    parts = compile_parts(built, compiled, chosen)
    numbers = {step: part.number for part in parts for step in part.cut.plan.steps}
    for part in parts:
        file = output.with_stem(f"{output.stem}-{part.number}")
        file.write_text(part.pipeline, "utf-8")
        after = sorted({numbers[made.step] for made in part.cut.reads.values()})
        words = f", reads of part {', '.join(map(str, after))}" if after else ""
        say(f"{file}: {number(len(part.cut.plan.steps), 'step')}{words}")
    tell(
        f"note: {len(built.steps)} steps are too many for one workflow: it would have about "
        f"{compiled.size / 1e6:.2f} MB, and the cluster takes {chosen.workflow_size / 1e6:.2f} MB. "
        "`moco submit` begins each part when what it reads is there; begun by hand, a part wants "
        "the URIs of that as parameters"
    )
