"""What makes runs of plans: this machine, Kubeflow Pipelines, or what one adds.

A backend is a package below `pipelines/backends/`, here or anywhere on Python's path, with a module
`backend` whose `BACKEND` is a class of `pipelines.backends.base.Backend`. A run's record names the
backend that it is of.
"""

import importlib
import pkgutil
from typing import TYPE_CHECKING

from components.core.config import nearest
from components.core.errors import UsageError
from components.core.search_path import further_folders

if TYPE_CHECKING:
    from pipelines.backends.base import Backend, Settings
    from pipelines.runs.folder import Run

__path__ += further_folders(__name__, __path__)


def backend_names() -> list[str]:
    """Return the names of all backends."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)


def open_backend(name: str, settings: "Settings") -> "Backend":
    """Return a backend by name; nothing is asked of a cluster yet.

    Raises:
        UsageError: if there is none, naming the nearest.
    """
    names = backend_names()
    if name not in names:
        near = nearest(name, names) or f"; there are {', '.join(names)}"
        raise UsageError(f"no backend is called {name!r}{near}")
    backend: Backend = importlib.import_module(f"{__name__}.{name}.backend").BACKEND(settings)
    return backend


def backend_of(run: "Run", settings: "Settings") -> "Backend":
    """Return the backend that a run is of.

    Raises:
        UsageError: if it is not installed here.
    """
    return open_backend(run.record.backend, settings)
