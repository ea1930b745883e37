"""Runs whose folder lies in a bucket, with plan and record beside the artifacts."""

import re
from pathlib import Path

from pydantic import ValidationError

from components.core.errors import ConfigError, DataError, UsageError
from components.core.store import KeyNotFound, Store
from pipelines.plan import Plan
from pipelines.runs.folder import Run
from pipelines.runs.record import PLAN, RECORD, RunRecord

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def open_bucket_run(url: str, store: Store, runs: Path) -> Run:
    """Return a run that lies in a bucket, as a submitted run of this machine.

    Its folder below `runs` is made from the plan and the record in the bucket; one that is there
    already keeps what was heard of the run since.

    Args:
        url: Of the run's folder.
        store: The store at that URL.
        runs: Folder of the runs.

    Raises:
        UsageError: if there is no run, or another one has its name here.
        DataError: if what lies there is not a run of this version.
        StoreError: if the store cannot be reached or refuses.
    """
    plan_text, record = _read(url, store)
    if _path(record.artifacts or "") != _path(url):  # a copy, in another bucket
        record = record.model_copy(update={"artifacts": url.rstrip("/")})
    run = Run(runs / record.id)
    if (run.folder / RECORD).exists():
        known = run.record
        if (known.backend, known.place) != (record.backend, record.place):
            raise UsageError(
                f"{url} is called {record.id}, and so is another run in {runs}; "
                "MOCO_RUNS names another folder of runs"
            )
        if known.state == "running" and record.state != "running":
            run.write_record(
                known.model_copy(update={"state": record.state, "ended": record.ended})
            )
        return run
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / PLAN).write_text(plan_text, "utf-8")
    run.write_record(record)
    return run


def _read(url: str, store: Store) -> tuple[str, RunRecord]:
    """Return a run's plan and record, which may be anybody's: neither may lead out of a folder."""
    try:
        text, written = store.read(PLAN).decode(), store.read(RECORD)
    except KeyNotFound:
        raise UsageError(
            f"{url} is no run: it has no {PLAN} and {RECORD}. `moco submit` writes them to "
            "ROOT/PIPELINE/RUN, where the run's artifacts go"
        ) from None
    try:
        record = RunRecord.model_validate_json(written)
        plan = Plan.from_json(text)
    except (ValidationError, ConfigError, UsageError) as error:
        raise DataError(f"{url} is not a run of this version: {error}") from None
    if not _ID.fullmatch(record.id) or record.steps != tuple(plan.steps):
        raise DataError(f"{url}/{RECORD} does not belong to the plan beside it: refused")
    if record.artifacts is None:
        raise DataError(f"{url} was not submitted to a cluster: fetch its folder, and name that")
    return text, record


def _path(url: str) -> str:
    return url.partition("://")[2].rstrip("/")
