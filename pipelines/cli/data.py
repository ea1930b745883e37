"""`moco data`: which data sets there are, and what is wrong with one before anything trains."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from components.core.dataset import datasets
from components.core.errors import DataError, ExitCode
from pipelines.cli.options import Json
from pipelines.cli.output import print_json, say
from pipelines.words import number

SHOWN = 100  # faults

app = App(name="data", help="List and check data sets.")


@app.command(name="list")
def list_(*, json: Json = False) -> None:
    """List the data sets that there are, your own among them, and how each is laid out."""
    known = datasets()
    if json:
        print_json(
            [
                {"name": dataset.name, "kinds": [*dataset.readers], "summary": dataset.summary}
                for dataset in known
            ]
        )
        return
    wide = max(len(dataset.name) for dataset in known)
    for dataset in known:
        say(f"{dataset.name:<{wide}}  {dataset.summary}")


@app.command
def check(
    name: Annotated[
        str,
        Parameter(help="The name of its layout: `moco data list` names all."),
    ],
    path: Annotated[Path, Parameter(help="The data set's folder.")],
    /,
    *,
    decode: Annotated[
        bool, Parameter(help="Decode every image too, which finds damage inside; slow.")
    ] = False,
    json: Json = False,
) -> int:
    """List all faults of a data set's layout, with file and id."""
    from components.datasets.check import check_data

    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    findings = check_data(name, path, decode=decode)
    code = ExitCode.BAD_DATA if findings.faults else ExitCode.OK
    if json:
        faults = [vars(fault) for fault in findings.faults]
        print_json({"faults": faults, "notes": findings.notes, "counts": findings.counts})
        return code
    for what, count in findings.counts.items():
        say(f"{what}: {count:,}")
    for note in findings.notes:
        say(f"note: {note}")
    for fault in findings.faults[:SHOWN]:
        say(f"fault: {fault}")
    if len(findings.faults) > SHOWN:
        say(f"and {len(findings.faults) - SHOWN} more; --json lists all")
    say(f"{path}: {number(len(findings.faults), 'fault') if findings.faults else 'no fault'}")
    return code
