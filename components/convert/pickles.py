"""The only place where a legacy pickle is read: names are looked up, nothing of it is executed.

Unpickling normally calls whatever the file names. Here every permitted name stands for a
description of ours, plain data; tensors are made afterwards, from bounds that were checked.
"""

import io
import math
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

from components.core.errors import DataError

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first value in a file of torch.save before torch 1.6
LEGACY_PROTOCOL = 1001

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class _Storage(NamedTuple):
    """Where a tensor's elements are; the device that they were on does not matter."""

    dtype: torch.dtype
    key: str
    numel: int


class TensorRecord(NamedTuple):
    """A tensor as a pickle describes it, unchecked."""

    storage: Any
    offset: Any
    size: Any
    stride: Any

    def __setstate__(self, state: object) -> None:
        """Drop what torch before 0.4 set on a parameter: hooks, and whether it has a gradient."""


class _Mapping(dict[Any, Any]):
    """Stands for OrderedDict, and for a Namespace of options, whose content is of no use here."""

    def __setstate__(self, state: object) -> None:
        """Drop attributes such as a state dict's `_metadata`; none can be set on this class."""


class _RebuildTensor:
    """Stands for the functions that make tensors; without slots, nothing of it can be set."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorRecord:
        return TensorRecord(storage, offset, size, stride)


class _Parameter:
    """Stands for a parameter: called or, by torch before 0.4, made new; it is its tensor."""

    def __new__(cls, data: Any, *_: Any) -> Any:
        return data

    def __setstate__(self, state: object) -> None:
        """Exist, so that a pickle cannot set attributes of this class."""


_PERMITTED: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Mapping,
    ("argparse", "Namespace"): _Mapping,
    ("torch._utils", "_rebuild_tensor"): _RebuildTensor(),
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("torch.nn.parameter", "Parameter"): _Parameter,
    ("torch", "Size"): tuple,
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
}


class _RefusedError(pickle.UnpicklingError):
    """The file is whole, and asks for what is not permitted."""


class _Unpickler(pickle.Unpickler):
    """Reads data; refuses every name that is not needed to describe tensors."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _PERMITTED[module, name]
        except KeyError:
            raise _RefusedError(f"it asks to run {module}.{name}") from None

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", torch.dtype() as dtype, str() as key, str(), int() as numel, *view):
                if view in ([], [None]):
                    return self.storages.setdefault(key, _Storage(dtype, key, numel))
        raise _RefusedError(f"it refers to a storage as no torch since 0.4 does: {pid!r:.200}")


class _Extent(NamedTuple):
    """Where in the file a storage's bytes are, and their CRC-32 where the format has one."""

    offset: int
    size: int
    crc: int | None = None


class PickledCheckpoint:
    """A file of torch.save, of either format, whose tensors are read when they are wanted.

    Attributes:
        content: The unpickled object; where it had tensors it has descriptions of them.
    """

    def __init__(self, path: Path) -> None:
        """Read everything but the tensors; nothing in the file is run.

        Raises:
            DataError: if it is damaged, or names anything but tensors and plain data.
        """
        self.path = path
        with path.open("rb") as file:
            magic = file.read(len(ZIP_MAGIC))
            file.seek(0)
            try:
                read = _read_zip if magic == ZIP_MAGIC else _read_legacy
                self.content, self._extents = read(file)
            except _RefusedError as error:
                raise DataError(
                    f"{path} is refused, nothing of it was run: {error}\n"
                    "Only tensors in plain containers are read. If you trust the file, load it "
                    "where it was made and save its state_dict() with safetensors"
                ) from None
            except Exception as error:  # a damaged pickle makes an unpickler raise anything
                raise DataError(
                    f"{path} is not a whole file of torch.save or safetensors "
                    f"({type(error).__name__}: {error}); fetch it again and compare its hash"
                ) from None

    def load(self, records: Mapping[str, TensorRecord]) -> dict[str, Tensor]:
        """Read tensors, wherever they were saved from, to the CPU.

        Raises:
            DataError: naming a tensor that lies outside its storage or is damaged.
        """
        with self.path.open("rb") as file:
            return {name: self._load(file, name, record) for name, record in records.items()}

    def _load(self, file: IO[bytes], name: str, record: TensorRecord) -> Tensor:
        fault = _fault(record)
        if fault:
            raise DataError(f"{self.path}: the tensor {name} {fault}; fetch the file again")
        storage: _Storage = record.storage
        extent = self._extents.get(storage.key)
        if extent is None or extent.size != storage.numel * storage.dtype.itemsize:
            raise DataError(
                f"{self.path}: the storage of {name} should have {storage.numel} elements, and "
                f"{'is missing' if extent is None else f'has {extent.size} bytes'}; "
                "fetch the file again"
            )
        file.seek(extent.offset)
        data = bytearray(file.read(extent.size))
        if len(data) != extent.size or (extent.crc is not None and zlib.crc32(data) != extent.crc):
            raise DataError(f"{self.path}: the bytes of {name} are damaged; fetch the file again")
        if not data:
            return torch.empty(tuple(record.size), dtype=storage.dtype)
        elements = torch.frombuffer(data, dtype=storage.dtype)
        view = elements.as_strided(tuple(record.size), tuple(record.stride), record.offset)
        return view.clone(memory_format=torch.contiguous_format)


def _fault(record: TensorRecord) -> str | None:
    """Say what is wrong with a tensor's description: every number comes from the file."""
    storage, offset, size, stride = record
    if not isinstance(storage, _Storage):
        return "has no storage"
    if not (isinstance(size, tuple | list) and isinstance(stride, tuple | list)):
        return "has no shape"
    if len(size) != len(stride) or not all(
        type(number) is int and 0 <= number < 2**63
        for number in (storage.numel, offset, *size, *stride)
    ):
        return "has an impossible shape"
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count and (last >= storage.numel or count > storage.numel):
        return f"reaches element {last} of a storage of {storage.numel}"
    return None


def _read_zip(file: IO[bytes]) -> tuple[Any, dict[str, _Extent]]:
    """Read the format of torch 1.6 and later: a pickle beside one uncompressed file a storage."""
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("a zip archive without the data.pkl of torch.save")
        root = pickles[0].removesuffix("data.pkl")
        if any(e.compress_type for e in entries.values()):
            raise ValueError("compressed, which torch.save never does")
        if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("saved on a big-endian machine")
        unpickler = _Unpickler(io.BytesIO(archive.read(pickles[0])))
        content = unpickler.load()
        extents = {}
        for key in unpickler.storages:
            entry = entries[f"{root}data/{key}"]
            file.seek(entry.header_offset + 26)
            name_size, extra_size = struct.unpack("<HH", file.read(4))
            start = entry.header_offset + 30 + name_size + extra_size
            extents[key] = _Extent(start, entry.file_size, entry.CRC)
        return content, extents


def _read_legacy(file: IO[bytes]) -> tuple[Any, dict[str, _Extent]]:
    """Read the format before torch 1.6, which the authors' checkpoints have: pickles, then bytes.

    Magic number, protocol, machine, the object, the storages' keys; then for every key the
    number of elements, 8 bytes, and the elements.
    """
    if _Unpickler(file).load() != LEGACY_MAGIC:
        raise ValueError("a pickle that torch.save did not write")
    protocol, machine = _Unpickler(file).load(), _Unpickler(file).load()
    if protocol != LEGACY_PROTOCOL or machine.get("little_endian") is not True:
        raise ValueError(f"protocol {protocol}, machine {machine}: not little-endian torch")
    unpickler = _Unpickler(file)
    content = unpickler.load()
    keys = _Unpickler(file).load()
    end = os.fstat(file.fileno()).st_size
    extents: dict[str, _Extent] = {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        extent = _Extent(file.tell(), count * unpickler.storages[key].dtype.itemsize)
        if count < 0 or extent.offset + extent.size > end:
            raise ValueError(f"the file ends within storage {len(extents) + 1} of {len(keys)}")
        file.seek(extent.offset + extent.size)
        extents[key] = extent
    return content, extents
