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
    """Write a recipe as a Kubeflow pipeline."""
    from pipelines.backends.kubeflow.connection import cluster_options
    from pipelines.backends.kubeflow.images import require_digests

    given = options.data(pairs("--data", data, "NAME=CLAIM"))
    built = options.plan(recipe, given)
    chosen = cluster_options(cluster, ask=False)
    chosen = chosen.derive(claims={**chosen.claims, **mounted(built, given)})
    require_digests(built, chosen)
    try:
        from pipelines.backends.kubeflow.compile import compile_plan
    except ModuleNotFoundError as error:
        raise UsageError(f"compiling needs {error.name}: install moco-transfer[kubeflow]") from None
    compiled = compile_plan(built, output, chosen)
    say(f"{output}: {number(len(built.steps), 'step')} of {built.name} at {built.scale} scale")
    if words := compiled.too_large(chosen):
        tell(f"note: {words}")
