"""Follows a part of a run that was cut, in the cluster, and begins the parts that come after it.

    python -m pipelines.backends.kubeflow.next_parts --config JSON --run URL

A pod of it stands in every part. It asks the pipeline server how the steps go, begins each other
part as soon as all that it reads is there or will never be, and ends with the last step of its own.
Nothing here imports a client of the cluster.
"""

from typing import Self

from pydantic import Field, PositiveInt

from components.core.config import Config, canonical_json
from pipelines.backends.kubeflow.options import ClusterOptions

MODULE = __name__
TASK = "next-parts"
"""Name of its task; that of a step comes of a name without dashes."""
ACCESS_LABEL = "access-ml-pipeline"
"""Label with which a Kubeflow for many users lets a pod use its pipelines."""

_ASKED = ("namespace", "server_namespace", "experiment", "service_account", "root")
_STORE = ("store_endpoint", "store_region")


class NextPartsConfig(Config):
    """What the pod that begins the next parts is told."""

    part: PositiveInt = 1
    """Number of the part that it stands in."""
    seconds: float = Field(default=15.0, gt=0)
    """Between two looks at the run."""
    hours: float = Field(default=6.0, ge=0)
    """That server and store may be away before it gives up."""
    options: ClusterOptions = Field(default_factory=ClusterOptions)
    """Of the cluster, as pods see it."""

    @classmethod
    def of(cls, part: int, options: ClusterOptions) -> Self:
        """Describe that of a part on a cluster."""
        server = options.server_in_cluster or (
            f"http://ml-pipeline.{options.server_namespace}:8888"
        )
        asked = {name: getattr(options, name) for name in (*_ASKED, *_STORE)}
        return cls(part=part, options=ClusterOptions(server=server, **asked))


def next_parts_argv(config: NextPartsConfig, run: str) -> list[str]:
    """Build its command line, without the interpreter.

    Args:
        config: What it is told.
        run: URL of the run's folder; if that is empty, the part is one by itself.
    """
    return ["-m", MODULE, "--config", changes(config), "--run", run]


def probe_argv(config: NextPartsConfig) -> list[str]:
    """Build the command line, without the interpreter, that tells whether one can work."""
    return ["-m", f"{MODULE}.probe", changes(config)]


def changes(config: NextPartsConfig) -> str:
    """Write what differs from the defaults."""
    changed = config.changes(NextPartsConfig())
    if "options" in changed:
        changed["options"] = config.options.changes(ClusterOptions())
    return canonical_json(changed)
