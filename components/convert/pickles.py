"""The only place where a legacy pickle is read: names are looked up, nothing of it is executed.

Unpickling normally calls whatever the file names. Here every permitted name stands for a
description of ours, plain data; bytes are given out afterwards, by bounds that were checked.
Nothing here needs torch, so a plan can be checked against a checkpoint.
"""

import io
import math
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple
from zlib import crc32

from components.core.errors import DataError

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first value in a file of torch.save before torch 1.6
LEGACY_PROTOCOL = 1001
LFS_POINTER = b"version https://git-lfs"

ITEM_SIZES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}
"""Bytes of an element, by torch's name of its type."""

_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
_NUMPY = {
    "f8": "float64",
    "f4": "float32",
    "f2": "float16",
    "i8": "int64",
    "i4": "int32",
    "i2": "int16",
    "i1": "int8",
    "u1": "uint8",
    "b1": "bool",
}


class _RefusedError(pickle.UnpicklingError):
    """The file is whole, and asks for what is not permitted."""


class Storage(NamedTuple):
    """Where elements are; the device that they were on does not matter.

    Attributes:
        dtype: torch's name of their type.
        key: Names the bytes in the file.
        numel: How many elements there are.
        data: The bytes themselves, of an array that came within the pickle.
    """

    dtype: str
    key: str
    numel: int
    data: bytes | None = None


class Extent(NamedTuple):
    """Where in the file a storage's bytes are, and their CRC-32 where the file has one."""

    offset: int
    size: int
    crc: int | None = None


Reader = Callable[[IO[bytes]], tuple[Any, dict[str, Extent]]]
"""Reads a file's content, with records in place of tensors, and where each storage is."""


class TensorRecord(NamedTuple):
    """A tensor as a file describes it, unchecked."""

    storage: Any
    offset: Any
    size: Any
    stride: Any

    def __setstate__(self, state: object) -> None:
        """Drop what torch before 0.4 set on a parameter: hooks, and whether it has a gradient."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape; whether it is possible is for `fault` to say."""
        return tuple(self.size) if isinstance(self.size, tuple | list) else ()

    @property
    def fault(self) -> str | None:
        """What is wrong with the description: every number comes from the file."""
        storage, offset, size, stride = self
        if not isinstance(storage, Storage):
            return "has no storage"
        if storage.dtype not in ITEM_SIZES:
            return f"is of type {storage.dtype}, which is not read"
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


class ArrayRecord:
    """A numpy array as a pickle describes it, unchecked."""

    def __init__(self, *_: Any) -> None:
        self.dtype: Any = None
        self.size: Any = ()
        self.fortran: Any = False
        self.data: Any = None

    def __setstate__(self, state: Any) -> None:
        """Take what numpy writes: version, shape, type, order of the elements, bytes."""
        _, self.size, self.dtype, self.fortran, self.data = state

    def record(self) -> TensorRecord | None:
        """Return the same as a tensor; None if its elements are no numbers."""
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data  # Python 2
        dtype = self.dtype.torch if isinstance(self.dtype, _Dtype) else None
        if dtype is None or not isinstance(data, bytes | bytearray):
            return None
        if not (isinstance(self.size, tuple) and all(type(n) is int for n in self.size)):
            return None
        order = reversed(self.size) if not self.fortran else self.size
        stride, step = [], 1
        for length in order:
            stride.append(step)
            step *= length
        strides = tuple(stride if self.fortran else reversed(stride))
        storage = Storage(dtype, "", len(data) // ITEM_SIZES[dtype], bytes(data))
        return TensorRecord(storage, 0, self.size, strides)


class _Dtype:
    """Stands for numpy's type of elements."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    @property
    def torch(self) -> str | None:
        little = self.order in ("<", "|", "=")
        return _NUMPY.get(self.code) if little and isinstance(self.code, str) else None


class _FromBuffer:
    """Stands for numpy's function that makes an array of a buffer: protocol 5."""

    __slots__ = ()

    def __call__(self, data: Any, dtype: Any, size: Any, order: Any) -> ArrayRecord:
        array = ArrayRecord()
        array.__setstate__((1, size, dtype, order == "F", data))
        return array


class _Encode:
    """Stands for the codec by which protocol 2 writes bytes as text."""

    __slots__ = ()

    def __call__(self, text: str, *_: Any) -> bytes:
        return text.encode("latin1")


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


class _Beside:
    """Stands for plain data that lies beside weights: it takes whatever it is given, and drops it.

    Counters of schedules, sets, devices, paths and options of trainers are in many checkpoints.
    """

    def __init__(self, *_: Any, **__: Any) -> None:
        """Drop the content."""

    def __setstate__(self, state: object) -> None:
        """Drop attributes; none can be set on this class."""

    def __setitem__(self, key: object, value: object) -> None:
        """Drop an item."""

    def append(self, item: object) -> None:
        """Drop an item."""

    def extend(self, items: object) -> None:
        """Drop items."""


_BUILTINS = "bytearray complex dict float frozenset int list set str"
_PERMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Mapping,
    ("argparse", "Namespace"): _Mapping,
    ("torch._utils", "_rebuild_tensor"): _RebuildTensor(),
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("torch.nn.parameter", "Parameter"): _Parameter,
    ("torch", "Size"): tuple,
    **{("torch", name): name for name in _STORAGES},
    ("numpy", "ndarray"): ArrayRecord,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encode(),
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", ArrayRecord),
            ("multiarray", "scalar", _Beside),
            ("numeric", "_frombuffer", _FromBuffer()),
        )
    },
    **{
        (module, name): _Beside
        for module, names in {
            "builtins": _BUILTINS,
            "__builtin__": _BUILTINS,  # as protocol 2 calls it
            "collections": "Counter defaultdict deque",
            "datetime": "date datetime timedelta",
            "pathlib": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
            "pathlib._local": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
            "torch": f"device {' '.join(ITEM_SIZES)}",
            "lightning.fabric.utilities.data": "AttributeDict",
            "lightning_fabric.utilities.data": "AttributeDict",
            "pytorch_lightning.utilities.parsing": "AttributeDict",
        }.items()
        for name in names.split()
    },
}


class _Unpickler(pickle.Unpickler):
    """Reads data; refuses every name that is not needed to describe tensors."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")  # Python 2 wrote bytes where 3 writes text
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _PERMITTED[module, name]
        except KeyError:
            raise _RefusedError(f"it asks to run {module}.{name}") from None

    def persistent_load(self, pid: Any) -> Storage:
        match pid:
            case ("storage", str() as kind, str() as key, str(), int() as numel, *view):
                if kind in _STORAGES and view in ([], [None]):
                    storage = Storage(_STORAGES[kind], key, numel)
                    return self.storages.setdefault(key, storage)
        raise _RefusedError(f"it refers to a storage as no torch since 0.4 does: {pid!r:.200}")


class PickledCheckpoint:
    """A file of torch.save, of either format, or a bare pickle; bytes are read when wanted.

    Attributes:
        path: The file.
        content: What it holds, with records in place of tensors.
    """

    def __init__(self, path: Path) -> None:
        """Read everything but the tensors; nothing in the file is run.

        Raises:
            DataError: if it is damaged, or names anything but tensors and plain data.
        """
        self.path = path
        with path.open("rb") as file:
            head = file.read(len(LFS_POINTER))
            file.seek(0)
            if head == LFS_POINTER:
                raise DataError(
                    f"{path} only points to a file of Git LFS: `git lfs pull` fetches it"
                )
            try:
                self.content, self._extents = self.reader(head)(file)
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

    def data(self, name: str, record: TensorRecord) -> bytes | bytearray:
        """Return the bytes of a tensor's whole storage.

        Args:
            name: For the error.
            record: One of the containers'.

        Raises:
            DataError: naming a tensor that lies outside its storage or is damaged.
        """
        if fault := record.fault:
            raise DataError(f"{self.path}: the tensor {name} {fault}; fetch the file again")
        storage: Storage = record.storage
        size = storage.numel * ITEM_SIZES[storage.dtype]
        if storage.data is not None:
            return storage.data
        extent = self._extents.get(storage.key)
        if extent is None or extent.size != size:
            raise DataError(
                f"{self.path}: the storage of {name} should have {storage.numel} elements, and "
                f"{'is missing' if extent is None else f'has {extent.size} bytes'}; "
                "fetch the file again"
            )
        try:
            with self.path.open("rb") as file:
                return _read_extent(file, extent)
        except ValueError:
            raise DataError(
                f"{self.path}: the bytes of {name} are damaged; fetch the file again"
            ) from None

    @staticmethod
    def reader(head: bytes) -> Reader:
        """Choose what reads a file by its first bytes."""
        return _read_zip if head.startswith(ZIP_MAGIC) else _read_legacy


def _read_zip(file: IO[bytes]) -> tuple[Any, dict[str, Extent]]:
    """Read the format of torch 1.6 and later: a pickle beside one uncompressed file a storage.

    Returns:
        The content, with records in place of tensors, and where each storage is.
    """
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("a zip archive without the data.pkl of torch.save")
        root = pickles[0].removesuffix("data.pkl")
        if any(e.compress_type for e in entries.values()):
            raise ValueError("compressed, which torch.save never does")
        order = f"{root}byteorder"
        if order in entries and _read_extent(file, _extent(file, entries[order])) != b"little":
            raise ValueError("saved on a big-endian machine")
        data = _read_extent(file, _extent(file, entries[pickles[0]]))
        unpickler = _Unpickler(io.BytesIO(data))
        content = unpickler.load()
        extents = {key: _extent(file, entries[f"{root}data/{key}"]) for key in unpickler.storages}
        return content, extents


def _read_legacy(file: IO[bytes]) -> tuple[Any, dict[str, Extent]]:
    """Read the format before torch 1.6, which the authors' checkpoints have: pickles, then bytes.

    Magic number, protocol, machine, the object, the storages' keys; then for every key the
    number of elements, 8 bytes, and the elements. A bare pickle of a dictionary is read too:
    detectron2's weights are one, with arrays in it.

    Returns:
        The content, with records in place of tensors, and where each storage is.
    """
    first = _Unpickler(file).load()
    if isinstance(first, dict):
        return first, {}
    if first != LEGACY_MAGIC:
        raise ValueError("a pickle that torch.save did not write")
    protocol, machine = _Unpickler(file).load(), _Unpickler(file).load()
    if protocol != LEGACY_PROTOCOL or machine.get("little_endian") is not True:
        raise ValueError(f"protocol {protocol}, machine {machine}: not little-endian torch")
    unpickler = _Unpickler(file)
    content = unpickler.load()
    keys = _Unpickler(file).load()
    end = os.fstat(file.fileno()).st_size
    extents: dict[str, Extent] = {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        extent = Extent(file.tell(), count * ITEM_SIZES[unpickler.storages[key].dtype])
        if count < 0 or extent.offset + extent.size > end:
            raise ValueError(f"the file ends within storage {len(extents) + 1} of {len(keys)}")
        file.seek(extent.offset + extent.size)
        extents[key] = extent
    return content, extents


def _read_extent(file: IO[bytes], extent: Extent) -> bytearray:
    """Read bytes, compared with their CRC-32 where there is one.

    Raises:
        ValueError: if there are fewer, or they are others.
    """
    file.seek(extent.offset)
    data = bytearray(file.read(extent.size))
    if len(data) != extent.size or (extent.crc is not None and crc32(data) != extent.crc):
        raise ValueError("damaged bytes")
    return data


def _extent(file: IO[bytes], entry: zipfile.ZipInfo) -> Extent:
    """Find an entry's bytes. torch can be told to compute no CRC-32, and then writes zero."""
    file.seek(entry.header_offset + 26)
    name_size, extra_size = struct.unpack("<HH", file.read(4))
    start = entry.header_offset + 30 + name_size + extra_size
    return Extent(start, entry.file_size, entry.CRC or None)
