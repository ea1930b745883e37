"""Finds every fault in a data set's layout, with file and id, before anything trains."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.core.dataset import find_dataset
from components.core.errors import UsageError
from components.datasets.files import can_decode
from components.datasets.findings import Findings

if TYPE_CHECKING:  # it needs numpy, which a plain installation has not
    from components.datasets.interface import DatasetReader


def check_data(name: str, path: Path, *, decode: bool = False) -> Findings:
    """List all faults of a data set.

    Every image's first and last bytes are read, which finds empty, truncated and
    foreign files.

    Args:
        name: Of the data set, as `moco data list` has it.
        path: The data set's folder; for `images` also a text file that lists them.
        decode: Decode every image as well, which finds damage inside; minutes a million.

    Raises:
        UsageError: if there is no such data set, or no library to read or decode with.
    """
    declared = find_dataset(name)
    if decode and not can_decode():
        raise UsageError("decoding needs the image libraries: install moco-transfer[train]")
    findings = Findings()
    for kind in declared.readers:
        reader: DatasetReader[Any] = declared.load(kind)
        reader.check(path, findings, decode=decode)
    findings.faults = list(dict.fromkeys(findings.faults))  # what two readers or parts share
    return findings
