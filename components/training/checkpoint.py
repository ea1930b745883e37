"""Checkpoints: everything a training needs to go on bit-exact, saved while it goes on.

One is a folder `checkpoints/STEP/` in a store: tensors as safetensors, the rest as
JSON, and a manifest of sizes and hashes that is written last. No pickle.
"""

import hashlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from components.core.content import Content
from components.core.errors import ConfigError, DataError, DiskFullError, of_os_error
from components.core.log import get_logger
from components.core.manifest import FileEntry
from components.core.store import FolderStore, HashMismatch, KeyNotFound, Store

log = get_logger(__name__)

ROOT = "checkpoints"
KEPT = 2
FORCE = "MOCO_FORCE_RESUME"
_TENSOR = "__tensor__"

State = Mapping[str, Any]
"""Nested dicts and lists with tensors and JSON values at the leaves."""


class Checkpointer:
    """Saves states of one training in the background and finds the newest good one.

    Only rank 0 makes one; the other ranks' states reach it by `gather_objects`.
    """

    def __init__(self, store: Store, identity: State) -> None:
        """Remember where to save.

        Args:
            store: Where checkpoints live; it outlives this process.
            identity: JSON that says which training this is: the config's identity, inputs, code,
                and as `data` the content of each mounted data set by port. A checkpoint of another
                training is refused.
        """
        self.store = store
        self.identity = json.loads(json.dumps(identity))  # as it reads after a save
        self.forced: list[str] = []
        """In what the training differs from those whose checkpoints it was made to go on from."""
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    @property
    def saving(self) -> bool:
        """Whether a save is in progress."""
        return self._thread is not None and self._thread.is_alive()

    def save(self, step: int, state: State) -> bool:
        """Start saving a state; training may go on at once.

        Tensors are copied before this returns, those of a GPU within it: its way to main memory
        and to the store is the saving thread's. While an earlier save still runs, nothing is
        done: training does not wait for a slow store.

        Returns:
            Whether a save was started.

        Raises:
            MocoError: if an earlier save failed for a full disk; any other failure
                is logged, because training can go on without it.
        """
        if self.saving:
            log.warning("checkpoint skipped: the one before is still being saved", step=step)
            return False
        self._join()
        tensors: dict[str, Tensor] = {}
        document = _take_apart(state, tensors)
        copied = torch.cuda.current_stream().record_event() if _on_gpu(tensors) else None
        self._thread = threading.Thread(target=self._save, args=(step, document, tensors, copied))
        self._thread.start()
        return True

    def finish(self, step: int, state: State) -> None:
        """Save a state and wait until it is durable.

        Raises:
            MocoError: if it could not be saved.
        """
        if self._thread is not None:
            self._thread.join()
        self._failure = None  # what counts is whether this one arrives
        self.save(step, state)
        assert self._thread is not None
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def wait(self) -> None:
        """Wait for a save in progress."""
        if self._thread is not None:
            self._thread.join()

    def load(self, force: bool = False) -> tuple[int, State] | None:
        """Return the newest checkpoint that is whole, and its step; None without any.

        A damaged one is left out with a warning, and the one before is used.

        Args:
            force: Take a checkpoint even of another config, data or code.

        Raises:
            ConfigError: if it belongs to another training, naming what differs.
        """
        if isinstance(self.store, FolderStore):
            self.store.sweep()
        for step in reversed(self._steps()):
            try:
                manifest, state = self._load(step)
            except (DataError, HashMismatch, KeyNotFound, ValueError, KeyError) as error:
                log.warning("checkpoint damaged; trying the one before", step=step, why=str(error))
                continue
            different = _differences(manifest["identity"], self.identity)
            if different and not force:
                raise ConfigError(
                    f"the checkpoint at step {step} in {self.store.url} belongs to another "
                    "training; these differ:\n  "
                    + "\n  ".join(different)
                    + f"\nRestore them, remove the folder to start over, or set {FORCE}=1 to go on"
                )
            if different:
                log.warning("forced to go on from another training's checkpoint", differ=different)
            before = manifest.get("forced", [])
            self.forced = [*before, *(f"step {step}: {difference}" for difference in different)]
            return step, state
        return None

    def _save(
        self,
        step: int,
        document: Any,
        tensors: dict[str, Tensor],
        copied: torch.cuda.Event | None,
    ) -> None:
        started = time.monotonic()
        try:
            files = {
                "state.safetensors": save(_fetched(tensors, copied)),
                "state.json": json.dumps(document).encode(),
            }
            entries = {}
            for name, content in files.items():
                digest = hashlib.sha256(content).hexdigest()
                entries[name] = FileEntry(size=len(content), sha256=digest).model_dump()
                self.store.write(f"{_prefix(step)}/{name}", content)
            manifest = {"step": step, "identity": self.identity, "files": entries}
            if self.forced:
                manifest["forced"] = self.forced
            self.store.write(f"{_prefix(step)}/manifest.json", json.dumps(manifest).encode())
            self._purge()
        except Exception as error:  # reported by the training thread
            self._failure = (of_os_error(error) if isinstance(error, OSError) else None) or error
            log.warning("checkpoint failed", step=step, why=str(self._failure))
        else:
            log.debug("checkpoint saved", step=step, seconds=round(time.monotonic() - started, 3))

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        if isinstance(failure, DiskFullError):
            raise failure

    def _purge(self) -> None:
        """Delete all but the newest ones, and what kills in the middle of a save have left."""
        whole = self._steps()
        for step in self._steps(whole=False):
            if step < whole[-1] and step not in whole[-KEPT:]:
                if step in whole:  # first: without a manifest it is no checkpoint
                    self.store.delete(f"{_prefix(step)}/manifest.json")
                self.store.delete(_prefix(step))

    def _steps(self, *, whole: bool = True) -> list[int]:
        """Return the steps that were saved, growing; only those with a manifest if `whole`."""
        keys = (entry.key.split("/") for entry in self.store.list(ROOT))
        return sorted(
            {
                int(key[1])
                for key in keys
                if len(key) == 3 and key[1].isdigit() and (not whole or key[2] == "manifest.json")
            }
        )

    def _load(self, step: int) -> tuple[State, State]:
        manifest = json.loads(self.store.read(f"{_prefix(step)}/manifest.json"))
        content = {}
        for name, entry in manifest["files"].items():
            content[name] = self.store.read(f"{_prefix(step)}/{name}")
            actual = FileEntry(
                size=len(content[name]), sha256=hashlib.sha256(content[name]).hexdigest()
            )
            if actual != FileEntry.model_validate(entry):
                raise DataError(f"{name} is not what was saved")
        tensors = load(content["state.safetensors"])
        document = json.loads(content["state.json"])
        return manifest, _put_together(document, tensors)


def _prefix(step: int) -> str:
    return f"{ROOT}/{step:010d}"


def _take_apart(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Copy every tensor into `tensors` and return the rest as JSON values that refer to them."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # A clone, because training changes the original while the copy is written.
        tensors[name] = _clone(value.detach())
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        return {
            "dict": [[_take_apart(k, tensors), _take_apart(v, tensors)] for k, v in value.items()]
        }
    if isinstance(value, (list, tuple)):
        return [_take_apart(item, tensors) for item in value]
    return value


def _clone(value: Tensor) -> Tensor:
    try:
        return value.clone()
    except torch.OutOfMemoryError:  # then training waits for the way to main memory
        return value.to("cpu")


def _on_gpu(tensors: Mapping[str, Tensor]) -> bool:
    return any(tensor.is_cuda for tensor in tensors.values())


def _fetched(tensors: dict[str, Tensor], copied: torch.cuda.Event | None) -> dict[str, Tensor]:
    """Bring tensors to main memory, beside what the GPU does; those fetched leave it at once."""
    if copied is None:
        return {name: tensor.contiguous() for name, tensor in tensors.items()}
    (device,) = {tensor.device for tensor in tensors.values() if tensor.is_cuda}
    stream = torch.cuda.Stream(device)
    with torch.cuda.stream(stream):
        stream.wait_event(copied)
        for name, tensor in tensors.items():
            tensors[name] = tensor.to("cpu").contiguous()
    return tensors


def _put_together(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if _TENSOR in value:
            return tensors[value[_TENSOR]]
        return {k: _put_together(v, tensors) for k, v in value["dict"]}
    if isinstance(value, list):
        return [_put_together(item, tensors) for item in value]
    return value


def _differences(saved: State, wanted: State) -> list[str]:
    """Say in words in what two identities differ."""
    before, now = (
        {k: v for k, v in identity.items() if k != "data"} for identity in (saved, wanted)
    )
    return [
        *_differing_values(before, now),
        *_data_differences(saved.get("data", {}), wanted.get("data", {})),
    ]


def _data_differences(saved: State, wanted: State) -> Iterator[str]:
    for port in sorted({*saved, *wanted}):
        if port in saved and port in wanted:
            before, now = (Content.from_json(data[port]) for data in (saved, wanted))
            yield from (f"{port}: {change}" for change in now.changes_since(before))
        else:
            yield f"{port}: " + ("was no mounted data set" if port in wanted else "is not mounted")


def _differing_values(saved: Any, wanted: Any, path: str = "") -> list[str]:
    if isinstance(saved, Mapping) and isinstance(wanted, Mapping):
        different = []
        for key in sorted({*saved, *wanted}):
            where = f"{path}.{key}" if path else key
            different += _differing_values(saved.get(key), wanted.get(key), where)
        return different
    return [] if saved == wanted else [f"{path}: was {saved!r}, now {wanted!r}"]


def rng_state() -> dict[str, Any]:
    """Return the random state of this process, its GPU's included."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Restore what `rng_state` returned."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
