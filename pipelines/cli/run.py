"""`moco run`: a recipe on this machine, with progress, to its report."""

import sys
from typing import Annotated

from cyclopts import Parameter

from pipelines.backends import open_backend
from pipelines.backends.base import Request, Settings
from pipelines.cli.display import display_for
from pipelines.cli.options import Data, Jobs, RecipeName, RecipeOptions, mounted, pairs
from pipelines.cli.outcome import conclude

New = Annotated[
    bool, Parameter(help="Begin a new run even if the last one of the same plan did not finish.")
]


def run(
    recipe: RecipeName,
    /,
    *,
    options: RecipeOptions = RecipeOptions(),  # noqa: B008 - frozen
    data: Data = (),
    jobs: Jobs = None,
    new: New = False,
) -> int:
    """Run a recipe on this machine.

    What an earlier run made of the same config, inputs and code is reused. If the
    newest run of the same plan did not finish, it is continued: failed steps are
    tried again, stopped ones go on from their last checkpoint.
    """
    given = options.data(pairs("--data", data, "NAME=FOLDER"))
    plan = options.plan(recipe, given, here=True)
    request = Request(plan, mounted(plan, given), new=new)
    backend = open_backend("local", Settings(jobs=jobs))
    return conclude(backend.start(request, display_for(sys.stderr)))
