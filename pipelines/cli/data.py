"""`moco data`: which data sets there are, and what is wrong with one before anything trains."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from cyclopts import App, Parameter

from components.core.dataset import datasets
from components.core.errors import DataError, ExitCode, UsageError
from components.core.store import is_remote, local_path
from components.core.store.place import Places
from components.core.store.shards import INDEX, fetch_index
from pipelines.cli.options import Json
from pipelines.cli.output import print_json, say, tell
from pipelines.words import number

SHOWN = 100  # faults

app = App(name="data", help="List, check and pack data sets.")


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
def pack(
    layout: Annotated[str, Parameter(help="Of the source: imagenet, inaturalist, images.")],
    source: Annotated[Path, Parameter(help="Its folder.")],
    destination: Annotated[
        str, Parameter(help="The folder, or s3://..., that gets train/ and val/.")
    ],
    /,
    *,
    images: Annotated[
        int, Parameter(help="Images of a shard; 1,250 of ImageNet's are 140 MB.", show_default=True)
    ] = 1_250,
    seed: Annotated[int, Parameter(help="Of their order.", show_default=True)] = 0,
    jobs: Annotated[int | None, Parameter(help="Shards at a time; as many as cores.")] = None,
) -> None:
    """Pack images into shards, tar files that WebDataset reads, too, with an index beside them.

    The shards are read as the same layout: --data imagenet=DESTINATION. What an interrupted attempt
    has finished is kept; each shard is read back before it counts.
    """
    from components.datasets.packing import pack as pack_images

    if images < 1:
        raise UsageError(f"--images {images}: at least one")

    def told(split: str, done: int, total: int) -> None:
        if done == total or done % max(1, total // 20) == 0:
            tell(f"{split}: {done:,} of {number(total, 'shard')}")

    place = Places().find(destination) if is_remote(destination) else local_path(destination)
    counts = pack_images(layout, source, place, shard=images, seed=seed, jobs=jobs, tell=told)
    say(f"{destination}: {', '.join(f'{count:,} images of {s}' for s, count in counts.items())}")


@app.command
def index(
    path: Annotated[
        str, Parameter(help="The folder, or s3://..., with train/*.tar and val/*.tar or others.")
    ],
    /,
    *,
    classes: Annotated[
        Path | None, Parameter(help="A file with a class name a line, in the order of the labels.")
    ] = None,
    train: Annotated[
        str | None, Parameter(help="Which files are training shards: 'imagenet1k-train-*.tar'.")
    ] = None,
    val: Annotated[str | None, Parameter(help="Which are validation's.")] = None,
) -> None:
    """Make the index of shards that somebody else packed, as WebDataset does.

    It goes into train/ and val/; the shards stay as they are.
    """
    from components.datasets.shards import PATTERNS, index_shards, index_stored_shards

    lines = classes.read_text("utf-8").split("\n") if classes else []
    names = [name.strip() for name in lines if name.strip()]
    given = {split: pattern for split, pattern in (("train", train), ("val", val)) if pattern}
    if is_remote(path):
        place = Places().find(path)
        counts = index_stored_shards(place.store, place.key, given or PATTERNS, names)
    else:
        counts = index_shards(local_path(path), given or PATTERNS, names)
    say(f"{path}: {', '.join(f'{count:,} images of {s}' for s, count in counts.items())}")


@app.command
def check(
    name: Annotated[
        str,
        Parameter(help="The name of its layout: `moco data list` names all."),
    ],
    path: Annotated[str, Parameter(help="The data set's folder; s3://... where it is in shards.")],
    /,
    *,
    decode: Annotated[
        bool, Parameter(help="Decode every image too, which finds damage inside; slow.")
    ] = False,
    json: Json = False,
) -> int:
    """List all faults of a data set's layout, with file and id."""
    from components.datasets.check import check_data

    with TemporaryDirectory(prefix="moco-") as folder:
        if is_remote(path):
            place, here = Places().find(path), Path(folder)
            if not fetch_index(place.store, place.key, here):
                raise DataError(
                    f"{path} has no train/{INDEX}: in a bucket only data sets in shards can be "
                    "checked, and `moco data index` makes the index of shards"
                )
        else:
            here = local_path(path)
        if not here.exists():
            raise DataError(f"{path}: there is no such file or folder")
        findings = check_data(name, here, decode=decode)
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
