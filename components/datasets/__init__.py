"""The data sets, a folder each: its layout, its classes, its metric, and digits that look like it.

A folder declares itself in its `__init__` (`DATASETS`, of `components.core.dataset`), and what it
reads with is of a class of `interface`. Modules here are what data sets share.
"""

from components.core.search_path import further_folders

__path__ += further_folders(__name__, __path__)
