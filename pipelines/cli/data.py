"""`moco data`: what is wrong with a data set, before anything trains on it."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from components.core.errors import DataError, ExitCode
from pipelines.cli.options import Json
from pipelines.cli.output import print_json, say
from pipelines.words import number

SHOWN = 100  # faults

app = App(name="data", help="Check data sets.")


@app.command
def check(
    kind: Annotated[
        str,
        Parameter(
            help="imagenet, inaturalist, coco, keypoints, densepose, lvis, voc, voc_segmentation, "
            "cityscapes, or images (any folder tree or list of images)."
        ),
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
    from components.vision.check import check_data

    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    findings = check_data(kind, path, decode=decode)
    code = ExitCode.BAD_DATA if findings.faults else ExitCode.OK
    if json:
        faults = [vars(fault) for fault in findings.faults]
        print_json({"faults": faults, "notes": findings.notes, "counts": findings.counts})
        return code
    for name, count in findings.counts.items():
        say(f"{name}: {count:,}")
    for note in findings.notes:
        say(f"note: {note}")
    for fault in findings.faults[:SHOWN]:
        say(f"fault: {fault}")
    if len(findings.faults) > SHOWN:
        say(f"and {len(findings.faults) - SHOWN} more; --json lists all")
    say(f"{path}: {number(len(findings.faults), 'fault') if findings.faults else 'no fault'}")
    return code
