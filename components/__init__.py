"""What runs in a container: one folder per stage, and the libraries under them.

A stage of one's own is a folder in a folder `components/` anywhere on Python's path.
"""

from pathlib import Path

from components.core.search_path import further_folders

# What has an `__init__` is a package by itself: another copy of this one, or somebody else's.
__path__ += [
    folder
    for folder in further_folders(__name__, __path__)
    if not Path(folder, "__init__.py").exists()
]
