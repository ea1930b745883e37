"""`moco cancel`: stop a run."""

from pipelines.backends import backend_of
from pipelines.backends.base import Settings
from pipelines.cli.options import ClusterValues, RunName
from pipelines.cli.output import say
from pipelines.runs.find import find_run
from pipelines.runs.folder import runs_folder


def cancel(run: RunName, /, *, cluster: ClusterValues = ()) -> None:
    """Stop a run; its finished steps stay, and the same command or a rerun goes on from there."""
    named = find_run(run, runs_folder())
    say(backend_of(named, Settings(cluster)).cancel(named))
