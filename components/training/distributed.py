"""Processes of one training: started by torchrun's own API, talking through small helpers."""

import contextlib
import json
import os
import pickle
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from components.core import errors, log
from components.core.errors import ConfigError, Interrupted, MocoError

if TYPE_CHECKING:
    from torch.distributed.launcher.api import LaunchConfig

P = ParamSpec("P")
T = TypeVar("T")


SHARE_GPU = "MOCO_SHARE_GPU"
"""Set to 1, more processes than GPUs are tried: they share them and talk over gloo, slowly."""

JOIN_SECONDS = 1800
"""How long a node waits for the others: long enough for their images to be pulled."""


@dataclass(frozen=True)
class Nodes:
    """The machines of one training, as torchrun's variables tell this one of them.

    Kubeflow Trainer sets them in every pod of a TrainJob.
    """

    count: int
    rank: int
    address: str
    """Of the first node, where the processes meet."""
    port: int
    processes: int | None
    """On each node; None where the platform leaves it to us."""

    @classmethod
    def from_environment(cls) -> "Nodes | None":
        """Read the variables; None on a machine that trains alone.

        Raises:
            ConfigError: naming a variable that is missing or wrong.
        """
        if os.environ.get("PET_NNODES", "1") == "1":
            return None
        processes = os.environ.get("PET_NPROC_PER_NODE", "auto")
        nodes = cls(
            count=_number("PET_NNODES"),
            rank=_number("PET_NODE_RANK"),
            address=os.environ.get("PET_MASTER_ADDR", ""),
            port=_number("PET_MASTER_PORT"),
            processes=_number("PET_NPROC_PER_NODE") if processes.isdigit() else None,
        )
        if not nodes.address:
            raise ConfigError("PET_MASTER_ADDR is not set: the nodes have no place to meet")
        if nodes.rank >= nodes.count:
            raise ConfigError(f"PET_NODE_RANK {nodes.rank}: there are {nodes.count} nodes, from 0")
        return nodes

    def lost(self, reason: str) -> MocoError:
        """Return the error of a node that goes under with others."""
        return MocoError(
            f"node {self.rank} of {self.count} cannot go on: {reason}. The nodes meet at "
            f"{self.address}:{self.port}; the log of the one that failed first says why. All "
            "started again continue from the last checkpoint"
        )


def launch(processes: int | None, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:  # noqa: D417
    """Run `work` in every training process; return what the first process of this node returns.

    On the first node, and on a machine that trains alone, that is rank 0. One process
    alone runs in place. More are started by torchrun's API (its elastic agent), which
    ends all of a node when one fails; those of the other nodes then fail at their next
    exchange. Every node calls this with the same arguments.

    Args:
        processes: How many on a node; by default what the platform says, else one for each GPU.
        work: A function of a module; its arguments and its result are pickled.

    Raises:
        MocoError: what a process of this node raised, with its exit code.
        ConfigError: if torchrun's variables are wrong, or there are too few GPUs.
    """
    nodes = Nodes.from_environment()
    count = _process_count(processes, nodes)
    if count == 1 and nodes is None:
        return work(*args, **kwargs)
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    if nodes is not None and nodes.rank > 0:
        _await_first_node(nodes)
    with tempfile.TemporaryDirectory() as folder:
        try:
            results: dict[int, T] = elastic_launch(_launch_config(count, nodes), _in_process)(
                folder, work, pickle.dumps((args, kwargs))
            )
        except ChildFailedError as error:
            told = nodes and nodes.lost("a process here failed, or lost its peers on another node")
            raise _first_failure(Path(folder)) or told or error from None
        except SignalException as error:
            raise (
                _first_failure(Path(folder))
                or Interrupted(f"{error}; run the same command to continue")
            ) from None
        except dist.DistError as error:  # while the nodes gather
            raise nodes.lost(str(error).partition("\n")[0]) if nodes else error from None
    return results[min(results)]


def planned_world(processes: int | None) -> int:
    """Return how many processes `launch` makes on all nodes together.

    Raises:
        ConfigError: as `launch` does.
    """
    nodes = Nodes.from_environment()
    return _process_count(processes, nodes) * (nodes.count if nodes else 1)


def _process_count(processes: int | None, nodes: Nodes | None) -> int:
    gpus = torch.cuda.device_count()
    count = processes or (nodes and nodes.processes) or max(1, gpus)
    if torch.cuda.is_available() and count > gpus and os.environ.get(SHARE_GPU) != "1":
        raise ConfigError(
            f"processes: {count} wanted, but only {gpus} GPU(s) here, and NCCL takes one process "
            f"for each: set it to {gpus} or less. {SHARE_GPU}=1 lets them share, over gloo and "
            "slowly, to try what several processes do"
        )
    return count


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
    if not dist.is_initialized():
        return tensor
    sent = _for_exchange(tensor)
    gathered = sent.new_empty((sent.shape[0] * world(), *sent.shape[1:]))
    dist.all_gather_into_tensor(gathered, sent)
    return gathered.to(tensor.device)


def captures() -> bool:
    """Say whether exchanges between the ranks can be part of a CUDA graph, as NCCL's can."""
    return not dist.is_initialized() or dist.get_backend() == "nccl"


def exchange(tensor: Tensor, sent: Sequence[int], received: Sequence[int]) -> Tensor:
    """Send rows of a tensor to the other ranks, and receive theirs. Collective.

    Args:
        tensor: (N, ...), the rows for rank 0 first; from main memory over gloo in any case.
        sent: How many rows each rank gets.
        received: How many rows each rank sends.

    Returns:
        The rows received, those of rank 0 first.
    """
    rows = _for_exchange(tensor)
    arrived = rows.new_empty((sum(received), *rows.shape[1:]))
    group = None if rows.is_cuda else _control_group()
    dist.all_to_all_single(arrived, rows, list(received), list(sent), group=group)
    return arrived.to(tensor.device)


def _for_exchange(tensor: Tensor) -> Tensor:
    """Return a tensor as the backend takes it: gloo knows main memory only."""
    gloo = tensor.is_cuda and dist.get_backend() == "gloo"
    return tensor.cpu() if gloo else tensor.contiguous()


def gather_varying(tensor: Tensor) -> Tensor:
    """Concatenate tensors (N_rank, ...) of all ranks, whose N may differ, in rank order.

    Collective; no gradient flows through it.
    """
    if not dist.is_initialized():
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
    if dist.is_initialized():
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def gather_objects(value: T) -> list[T]:
    """Return the values of all ranks, in rank order. Collective."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value, group=_control_group())
    return values


def agree(*flags: bool) -> tuple[bool, ...]:
    """Return for each flag whether any rank raised it. Collective.

    It runs over gloo between the processors, so that no GPU has to be waited for.
    """
    if not dist.is_initialized():
        return flags
    total = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(total, group=_control_group())
    return tuple(bool(count) for count in total)


def _launch_config(count: int, nodes: Nodes | None) -> "LaunchConfig":
    from torch.distributed.launcher.api import LaunchConfig

    if nodes is None:
        return LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            start_method="spawn",
        )
    return LaunchConfig(
        min_nodes=nodes.count,
        max_nodes=nodes.count,
        nproc_per_node=count,
        run_id="moco-transfer",
        # The ranks are those of the platform: rank 0 is on the first node, and writes.
        rdzv_backend="static",
        rdzv_endpoint=f"{nodes.address}:{nodes.port}",
        rdzv_configs={"rank": nodes.rank, "timeout": JOIN_SECONDS},
        # A node that was lost is the platform's to replace, and all others with it.
        max_restarts=0,
        start_method="spawn",
    )


def _await_first_node(nodes: Nodes) -> None:
    """Wait until the first node listens; its name is not known before its pod has started.

    torch would wait too, but says much while it does, and hears no signal.
    """
    log.get_logger(__name__).info("waiting for the first node", address=nodes.address)
    deadline = time.monotonic() + JOIN_SECONDS
    while True:
        try:
            with socket.create_connection((nodes.address, nodes.port), timeout=5):
                return
        except OSError as error:
            if time.monotonic() > deadline:
                raise nodes.lost(str(error)) from None
        time.sleep(1)


def _number(variable: str) -> int:
    value = os.environ.get(variable, "")
    if not value.isdigit():
        raise ConfigError(f"{variable} is {value!r}; it must be a number where PET_NNODES is set")
    return int(value)


_control: dist.ProcessGroup | None = None


def _control_group() -> dist.ProcessGroup | None:
    return _control


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """Join the processes of this training, as torchrun's variables tell of them; part at the end.

    Processes with a GPU of their own talk over NCCL about tensors, and over gloo about all else.
    """
    global _control  # noqa: PLW0603 - one process group a process
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    if torch.cuda.is_available() and os.environ.get(SHARE_GPU) != "1":
        dist.init_process_group("nccl")
        control = dist.new_group(backend="gloo", timeout=timedelta(hours=2))
        _control = control if isinstance(control, dist.ProcessGroup) else None
    else:
        dist.init_process_group("gloo")
        if "OMP_NUM_THREADS" not in os.environ:
            cores = len(os.sched_getaffinity(0))
            torch.set_num_threads(max(1, cores // int(os.environ["LOCAL_WORLD_SIZE"])))
    try:
        yield
    finally:
        dist.destroy_process_group()
        _control = None


def _in_process(folder: str, work: Callable[..., T], pickled: bytes) -> T | None:
    """Do the work in one process, and leave a note of a failure that has an exit code."""
    args, kwargs = pickle.loads(pickled)  # noqa: S301 - from the parent process
    log.configure(level=None if os.environ["RANK"] == "0" else "warning")
    with process_group():
        try:
            result = work(*args, **kwargs)
        except MocoError as error:
            note = {"type": type(error).__name__, "message": str(error)}
            (Path(folder) / f"{dist.get_rank()}.json").write_text(json.dumps(note), "utf-8")
            raise
    return result if os.environ["LOCAL_RANK"] == "0" else None


def _first_failure(folder: Path) -> MocoError | None:
    for file in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns):
        note = json.loads(file.read_text("utf-8"))
        failure: MocoError = getattr(errors, note["type"], MocoError)(note["message"])
        return failure
    return None
