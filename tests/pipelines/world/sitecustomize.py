"""Adds the toy stage's recipe to every process that has this folder on its path."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
if not any(argument.startswith("components.") for argument in sys.orig_argv):
    import pipelines.recipes

    pipelines.recipes.__path__.append(str(HERE / "recipes"))
