"""Processes of one training: started by torchrun's own API, talking through small helpers."""

import json
import os
import pickle
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from components.core import errors, log
from components.core.errors import ConfigError, Interrupted, MocoError

P = ParamSpec("P")
T = TypeVar("T")


def launch(processes: int | None, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:  # noqa: D417
    """Run `work` in every training process; return what rank 0 returns.

    One process runs in place. More are started by torchrun's API (its elastic
    agent), which ends all of them when one fails.

    Args:
        processes: How many; by default one for each GPU.
        work: A function of a module; its arguments and rank 0's result are pickled.

    Raises:
        MocoError: what a process raised, with its exit code.
    """
    count = processes or max(1, torch.cuda.device_count())
    if torch.cuda.is_available() and count > torch.cuda.device_count():
        raise ConfigError(f"processes: {count} wanted, but only {torch.cuda.device_count()} GPU(s)")
    if count == 1:
        return work(*args, **kwargs)
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="spawn",
    )
    with tempfile.TemporaryDirectory() as folder:
        try:
            results: dict[int, T] = elastic_launch(config, _in_process)(
                folder, work, pickle.dumps((args, kwargs))
            )
        except ChildFailedError as error:
            raise _first_failure(Path(folder)) or error from None
        except SignalException as error:
            raise (
                _first_failure(Path(folder))
                or Interrupted(f"{error}; run the same command to continue")
            ) from None
    return results[0]


def rank() -> int:
    """Return this process's rank, 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Return the number of processes, 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def device() -> torch.device:
    """Return the device that this process trains on."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def gather(tensor: Tensor) -> Tensor:
    """Concatenate equal-shaped tensors (N, ...) of all ranks, in rank order: (N * world, ...).

    Collective; no gradient flows through it.
    """
    if world() == 1:
        return tensor
    gathered = tensor.new_empty((tensor.shape[0] * world(), *tensor.shape[1:]))
    dist.all_gather_into_tensor(gathered, tensor.contiguous())
    return gathered


def gather_varying(tensor: Tensor) -> Tensor:
    """Concatenate tensors (N_rank, ...) of all ranks, whose N may differ, in rank order.

    Collective; no gradient flows through it.
    """
    if world() == 1:
        return tensor
    sizes = gather_objects(tensor.shape[0])
    padded = tensor.new_zeros((max(sizes), *tensor.shape[1:]))
    padded[: len(tensor)] = tensor
    parts = gather(padded).split(max(sizes))
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def share_buffers(module: nn.Module) -> None:
    """Give every rank the buffers of rank 0, which are those that are saved. Collective.

    In training each rank has batch statistics of its own; in evaluation all must agree.
    """
    if world() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def gather_objects(value: T) -> list[T]:
    """Return the values of all ranks, in rank order. Collective."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value, group=_control_group())
    return values


def agree(*flags: bool) -> tuple[bool, ...]:
    """Return for each flag whether any rank raised it. Collective.

    It runs over gloo between the processors, so that no GPU has to be waited for.
    """
    if world() == 1:
        return flags
    total = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(total, group=_control_group())
    return tuple(bool(count) for count in total)


_control: dist.ProcessGroup | None = None


def _control_group() -> dist.ProcessGroup | None:
    return _control


def _in_process(folder: str, work: Callable[..., T], pickled: bytes) -> T | None:
    """Set up one process, do the work, and leave a note of a failure that has an exit code."""
    global _control  # noqa: PLW0603 - one process group a process
    args, kwargs = pickle.loads(pickled)  # noqa: S301 - from the parent process
    local_rank = int(os.environ["LOCAL_RANK"])
    log.configure(level=None if local_rank == 0 else "warning")
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
        dist.init_process_group("nccl")
        control = dist.new_group(backend="gloo", timeout=timedelta(hours=2))
        _control = control if isinstance(control, dist.ProcessGroup) else None
    else:
        dist.init_process_group("gloo")
        if "OMP_NUM_THREADS" not in os.environ:
            cores = len(os.sched_getaffinity(0))
            torch.set_num_threads(max(1, cores // int(os.environ["LOCAL_WORLD_SIZE"])))
    try:
        result = work(*args, **kwargs)
    except MocoError as error:
        note = {"type": type(error).__name__, "message": str(error)}
        (Path(folder) / f"{dist.get_rank()}.json").write_text(json.dumps(note), "utf-8")
        raise
    finally:
        dist.destroy_process_group()
        _control = None
    return result if local_rank == 0 else None


def _first_failure(folder: Path) -> MocoError | None:
    for file in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns):
        note = json.loads(file.read_text("utf-8"))
        failure: MocoError = getattr(errors, note["type"], MocoError)(note["message"])
        return failure
    return None
