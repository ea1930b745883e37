"""`moco explain`: from a measured number to the stage, the code, the weights and the data."""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from cyclopts import Parameter
from pydantic import ValidationError

from components.core.errors import UsageError
from components.core.manifest import Code, FileEntry, Lineage, verify, walk_lineage
from components.core.metrics import read_metrics
from components.core.stage import load_stage
from components.report import Table
from pipelines.backends import backend_of
from pipelines.backends.base import Settings
from pipelines.cli.options import Json, RunName
from pipelines.cli.output import print_json, say, tell
from pipelines.plan import Output
from pipelines.runs.cells import Cell, find_cell, report_config_of, table_of
from pipelines.runs.find import find_run
from pipelines.runs.folder import runs_folder
from pipelines.runs.pull import ensure_metrics
from pipelines.words import number, size

DIGITS = 16  # of a hash, for people; --json has all
WEIGHTS = (".safetensors", ".pth", ".pth.tar", ".pt")


def explain(
    run: RunName,
    cell: Annotated[str, Parameter(help="TABLE/ROW/COLUMN, or TABLE/ROW/COLUMN/TRIAL.")],
    /,
    *,
    json: Json = False,
) -> None:
    """Follow a measured number down to the data."""
    named = find_cell(find_run(run, runs_folder()), cell)
    origin = backend_of(named.run, Settings())
    if complaint := ensure_metrics(named.run, origin, cells=(named.key,)):
        tell(complaint)
    named.require()
    manifest = verify(named.artifact)
    if json:
        values = read_metrics(named.artifact).values
        print_json(
            {
                "cell": named.key,
                "run": named.run.id,
                "artifact": str(named.artifact),
                "values": values,
                "manifest": manifest.model_dump(mode="json"),
            }
        )
        return
    say("\n".join(_heading(named)))
    say()
    for line in whole_lineage(manifest.lineage()):
        say(line)
    say(
        "\nEvery file of the metrics matches its manifest. Configs are shown where they differ from"
    )
    say("the stage's defaults (`python -m components.STAGE --help`).")


def _heading(cell: Cell) -> Iterator[str]:
    table = table_of(report_config_of(cell.run), cell.key)
    _, row, column, trial = [*cell.key.split("__"), "", "", ""][:4]
    if table:
        yield f"{table.title}, {table.section}"
        yield f"  {_title(table.rows, row)}, {_title(table.columns, column)}, trial {trial}"
    values = read_metrics(cell.artifact).values
    published = _published(table, row, column) if table else {}
    names = {metric.key: metric.name for metric in table.metrics} if table else {}
    for key in [*names, *(key for key in values if key not in names)]:
        if key in values:
            beside = published.get(key)
            paper = f"   (published {beside:g})" if beside is not None else ""
            yield f"  {names.get(key, key)}: {values[key]:.4g}{paper}"
    if isinstance(cell.source, Output):
        status = cell.run.status(cell.source.step)
        yield f"  step {cell.source.step} of run {cell.run.id}" + (
            f", reused from {status.origin}" if status.origin else ""
        )
    yield f"  {cell.artifact}"


def whole_lineage(lineage: Lineage) -> Iterator[str]:
    """Yield the lines that say what something is and, indented, what it was made from."""
    yield from _lines(lineage)
    for depth, port, source in walk_lineage(lineage.inputs):
        indent = "  " * (depth + 1)
        yield f"{indent}{port}:"
        yield from (f"{indent}  {line}" for line in _lines(source))


def _lines(lineage: Lineage) -> Iterator[str]:
    """Yield the lines that say what something is and what made it."""
    if lineage.origin == "mount":
        yield f"{lineage.name}  (a mounted folder: not hashed)"
        return
    hashed = f"SHA-256 {(lineage.digest or '?')[:DIGITS]}"
    if lineage.origin == "file":
        yield f"{lineage.name}  (a file from elsewhere)  {hashed}, {size(lineage.size)}"
        return
    yield f"{lineage.name}  {hashed}, {number(lineage.file_count, 'file')}, {size(lineage.size)}"
    yield from _weights(lineage.files)
    if lineage.config is not None:
        stage = lineage.name.rpartition(".")[0]
        changed = _changed(lineage.config, _defaults(stage))
        yield f"  config {_flat(changed) or 'the defaults'}"
    if lineage.code is not None:
        yield f"  code   {_code(lineage.code)}"
    yield f"  image  {lineage.image}"
    if lineage.facts:
        yield f"  facts  {_flat(lineage.facts)}"


def _defaults(stage: str) -> dict[str, Any]:
    """Return a stage's default config, empty if this version has no such stage."""
    try:
        defaults: dict[str, Any] = load_stage(stage).config().model_dump(mode="json")
    except (UsageError, ValidationError):
        return {}
    return defaults


def _changed(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that differ from the defaults, nested ones by themselves."""
    changed: dict[str, Any] = {}
    for name, value in config.items():
        known = defaults.get(name)
        if isinstance(value, dict) and isinstance(known, dict):
            if nested := _changed(value, known):
                changed[name] = nested
        elif name not in defaults or value != known:
            changed[name] = value
    return changed


def _weights(files: Mapping[str, FileEntry]) -> Iterator[str]:
    for name, entry in files.items():
        if name.endswith(WEIGHTS):
            yield f"  weights {name}  SHA-256 {entry.sha256[:DIGITS]}"


def _code(code: Code) -> str:
    commit = f"commit {code.commit[:12]}" if code.commit else "no commit"
    return f"{code.version}, {commit}, sources {code.digest[:DIGITS]}"


def _flat(document: Mapping[str, Any], prefix: str = "") -> str:
    """Write nested fields in one line: `epochs=8 optimiser.lr=0.03`."""
    parts = []
    for name, value in document.items():
        if isinstance(value, dict):
            parts.append(_flat(value, f"{prefix}{name}."))
        else:
            shown = value if isinstance(value, str) else json.dumps(value)
            parts.append(f"{prefix}{name}={shown}")
    return " ".join(part for part in parts if part)


def _title(members: Any, key: str) -> str:
    return next((member.name for member in members if member.key == key), key)


def _published(table: Table, row: str, column: str) -> dict[str, float | None]:
    for published in table.published:
        if (published.row, published.column) == (row, column):
            keys = (metric.key for metric in table.metrics)
            return dict(zip(keys, published.values, strict=False))
    return {}
