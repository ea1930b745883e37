"""Opens a checkpoint file of any format: which tensors it describes, and where their bytes are."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from components.convert.pickles import (
    ArrayRecord,
    Extent,
    PickledCheckpoint,
    Reader,
    Storage,
    TensorRecord,
)

_SAFETENSORS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


class Checkpoint(PickledCheckpoint):
    """A file of torch.save, safetensors or pickle; bytes of tensors are read when wanted.

    Attributes:
        containers: Every dictionary with tensors in it by the keys that lead to it, joined by
            dots: `state_dict`, or the empty text for the content itself.
    """

    def __init__(self, path: Path) -> None:
        """Read everything but the tensors; nothing in the file is run.

        Raises:
            DataError: if it is damaged, or names anything but tensors and plain data.
        """
        super().__init__(path)
        self.containers = dict(_containers(self.content))

    @staticmethod
    def reader(head: bytes) -> Reader:
        """Choose by a file's first bytes; safetensors has its header's size, then the header."""
        return _read_safetensors if head[8:9] == b"{" else PickledCheckpoint.reader(head)


def _read_safetensors(file: IO[bytes]) -> tuple[Any, dict[str, Extent]]:
    """Read a safetensors header: names, types, shapes, and where the bytes are after it."""
    size = int.from_bytes(file.read(8), "little")
    end = os.fstat(file.fileno()).st_size
    if size + 8 > end:
        raise ValueError(f"a header of {size} bytes in a file of {end}")
    header = json.loads(file.read(size))
    records, extents = {}, {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        shape, (start, stop) = entry["shape"], entry["data_offsets"]
        stride = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        storage = Storage(_SAFETENSORS.get(entry["dtype"], entry["dtype"]), name, math.prod(shape))
        records[name] = TensorRecord(storage, 0, shape, stride)
        extents[name] = Extent(8 + size + start, stop - start)
        if not 0 <= start <= stop or 8 + size + stop > end:
            raise ValueError(f"the file ends within {name}")
    return records, extents


def _containers(content: Any) -> Iterator[tuple[str, dict[str, TensorRecord]]]:
    """Yield the dictionaries that hold tensors, the outer ones first."""
    pending, seen = [("", content)], set()  # a dictionary may hold itself
    for path, value in pending:
        if not isinstance(value, dict) or id(value) in seen:
            continue
        seen.add(id(value))
        named = {name: inner for name, inner in value.items() if isinstance(name, str)}
        records = {name: record for name, inner in named.items() if (record := _record(inner))}
        if records:
            yield path, records
        pending += [(f"{path}.{name}" if path else name, inner) for name, inner in named.items()]


def _record(value: Any) -> TensorRecord | None:
    if isinstance(value, ArrayRecord):
        return value.record()
    return value if isinstance(value, TensorRecord) else None


def parameters_trained(content: Any) -> int | None:
    """Count the parameters that an optimiser's state beside the weights has; None without one."""
    if not isinstance(content, Mapping):
        return None
    states = content.get("optimizer_states", [content.get("optimizer")])
    if not isinstance(states, list) or not states or not isinstance(states[0], Mapping):
        return None
    groups = states[0].get("param_groups")
    if not isinstance(groups, list):
        return None
    listed = (group.get("params") for group in groups if isinstance(group, Mapping))
    return sum(len(parameters) for parameters in listed if isinstance(parameters, list))
