"""Finds a run by what people call it, in a folder of runs or in a bucket."""

from pathlib import Path

from components.core.config import nearest
from components.core.errors import UsageError
from components.core.store import is_remote, open_store
from pipelines.runs.bucket import open_bucket_run
from pipelines.runs.folder import Run, all_runs
from pipelines.runs.record import RECORD


def find_run(name: str, runs: Path) -> Run:
    """Find a run by path or URL, by id or its beginning, or by recipe (the newest but reruns).

    Raises:
        UsageError: if there is none, naming the nearest, or if there are several.
    """
    if is_remote(name):
        return open_bucket_run(name, open_store(name), runs)
    if (Path(name) / RECORD).is_file():
        return Run(Path(name).absolute())
    if (runs / name / RECORD).is_file():
        return Run(runs / name)
    known = all_runs(runs)
    for run in known:
        if name == run.record.plan and run.record.parent is None:
            return run
    matches = [run for run in known if run.id.startswith(name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UsageError(
            f"{name!r} is the beginning of {len(matches)} runs: "
            + ", ".join(run.id for run in matches[:5])
        )
    if not known:
        raise UsageError(
            f"there is no run in {runs}: `moco run RECIPE` makes one; "
            "MOCO_RUNS names another folder of runs"
        )
    names = {run.id for run in known} | {run.record.plan for run in known}
    raise UsageError(
        f"no run in {runs} is called {name!r}{nearest(name, names)}; `moco status` lists the runs"
    )
