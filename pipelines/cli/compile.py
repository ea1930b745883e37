"""`moco compile`: a recipe as a Kubeflow pipeline."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from components.core.errors import UsageError
from pipelines.cli.options import ClusterValues, RecipeName, RecipeOptions
from pipelines.cli.output import say, tell
from pipelines.words import number


def compile_recipe(
    recipe: RecipeName,
    /,
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"), help="The YAML file to write.")],
    options: RecipeOptions = RecipeOptions(),  # noqa: B008 - frozen
    cluster: ClusterValues = (),
) -> None:
    """Write a recipe as a Kubeflow pipeline."""
    from pipelines.backends.kubeflow.connection import cluster_options
    from pipelines.backends.kubeflow.images import require_digests

    built = options.plan(recipe)
    chosen = cluster_options(cluster, ask=False)
    chosen = chosen.derive(claims={**chosen.claims, **options.data({})})
    require_digests(built, chosen)
    try:
        from pipelines.backends.kubeflow.compile import compile_plan
    except ModuleNotFoundError as error:
        raise UsageError(f"compiling needs {error.name}: install moco-transfer[kubeflow]") from None
    compiled = compile_plan(built, output, chosen)
    say(f"{output}: {number(len(built.steps), 'step')} of {built.name} at {built.scale} scale")
    if words := compiled.too_large(chosen):
        tell(f"note: {words}")
