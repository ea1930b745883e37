"""The training loop of every stage: steps, schedule, mixed precision, checkpoints, interruption."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from components.core.errors import Interrupted, NonFiniteLossError
from components.core.log import get_logger
from components.core.store import Store, open_store
from components.training import distributed
from components.training.checkpoint import FORCE, Checkpointer, State, rng_state, set_rng_state
from components.training.config import TrainingConfig
from components.training.history import History
from components.training.optimizer import make_optimizer
from components.training.schedule import lr_factor

log = get_logger(__name__)

Batch = Mapping[str, Tensor]
"""What a learner's module is called with, on the device."""
Losses = tuple[Tensor, Mapping[str, Tensor]]
"""The loss to minimise, a scalar, and further scalars to record."""


class Batches(Protocol):
    """The training data as the loop sees it: the same batches whenever they are asked for."""

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        ...

    def epoch(self, epoch: int, first_step: int) -> Iterator[Any]:
        """Yield the raw batches of an epoch (from 0), beginning with a step of it (from 0)."""
        ...


@dataclass
class Learner:
    """What a stage brings to the loop.

    Attributes:
        module: Called with a batch, it returns `Losses`. All that is learned is in its
            parameters and buffers.
        batches: The training data of this rank.
        prepare: Turns a raw batch and a device into a batch there, before mixed
            precision applies.
        evaluate: Called on every rank with the number of steps done; its figures go into the
            history. It may change buffers no more than it restores; random numbers that it
            draws are not missed by the training.
        evaluate_every: Steps between evaluations.
        evaluate_last: Whether the end is evaluated too, whatever the steps before it.
        norm_weight_decay: Of the parameters of normalisation, if other than the config's.
    """

    module: nn.Module
    batches: Batches
    prepare: Callable[[Any, torch.device], Batch]
    evaluate: Callable[[int], Mapping[str, float]] | None = None
    evaluate_every: int = 1
    evaluate_last: bool = True
    norm_weight_decay: float | None = None


@dataclass
class Progress:
    """Where a training stands; what is not in the module or the optimiser."""

    step: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    summed: int = 0


def train(
    learner: Learner,
    config: TrainingConfig,
    *,
    total_steps: int,
    state: str,
    identity: State,
    output: Path,
) -> History:
    """Train to the end, continuing from the newest checkpoint; every rank calls it.

    Args:
        learner: Model, data and evaluation.
        config: The stage's config.
        total_steps: Length of training, in steps.
        state: Folder or URL for checkpoints.
        identity: Which training this is; a checkpoint of another one is refused.
        output: Folder for the history.

    Returns:
        The history; only rank 0 writes it to files.

    Raises:
        Interrupted: after SIGTERM, once a checkpoint is durable.
        NonFiniteLossError: before the update that would have used the loss.
        ConfigError: if the checkpoint belongs to another training.
    """
    store = open_store(state)
    loop = _Loop(
        learner, config, total_steps, store, {**identity, "processes": distributed.world()}
    )
    rows = loop.restore()
    history = History(output if distributed.rank() == 0 else None, rows)
    with _termination() as terminated:
        try:
            loop.run(history, terminated)
        finally:
            loop.checkpointer.wait()
            history.close()
    return history


class _Loop:
    def __init__(
        self,
        learner: Learner,
        config: TrainingConfig,
        total_steps: int,
        store: Store,
        identity: State,
    ) -> None:
        self.learner = learner
        self.config = config
        self.total_steps = total_steps
        self.steps_per_epoch = learner.batches.steps
        self.store = store
        self.checkpointer = Checkpointer(store, identity)
        self.device = distributed.device()
        self.progress = Progress()
        self.module = learner.module.to(self.device)
        if config.channels_last:
            self.module.to(memory_format=torch.channels_last)
        self.optimizer = make_optimizer(self.module, config, learner.norm_weight_decay)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        if config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for
            torch.use_deterministic_algorithms(True)
        self.trained = self._wrapped()

    def run(self, history: History, terminated: threading.Event) -> None:
        """Train from where the progress stands to the end."""
        if self.progress.step == self.total_steps:
            return  # an earlier attempt trained to the end, and failed after that
        self._reporter = _Reporter(self.total_steps, self.progress.step)
        last_save = time.monotonic()
        while self.progress.step < self.total_steps:
            epoch, first = divmod(self.progress.step, self.steps_per_epoch)
            for raw in self.learner.batches.epoch(epoch, first):
                figures = self._step(raw)
                self._record(figures, history)
                due = time.monotonic() - last_save >= self.config.checkpoint_seconds
                save, stop = distributed.agree(due, terminated.is_set())
                done = self.progress.step == self.total_steps
                self._evaluate(history, done=done)
                if stop and not done:
                    self._save(history, durable=True)
                    raise Interrupted(
                        f"stopped at step {self.progress.step} of {self.total_steps}; "
                        "the checkpoint is safe, run the same command to continue"
                    )
                if save and not done:
                    self._save(history, durable=False)
                    last_save = time.monotonic()
                if done:
                    break
        self._save(history, durable=True)

    def restore(self) -> list[dict[str, Any]]:
        """Load the newest checkpoint, if any; return the history's rows up to it."""
        found = self.checkpointer.load(force=os.environ.get(FORCE) == "1")
        if found is None:
            return []
        step, state = found
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        set_rng_state(state["rng"][distributed.rank()])
        self.progress = Progress(step, dict(state["sums"]), state["summed"])
        log.info("continuing from a checkpoint", step=step, total=self.total_steps)
        rows: list[dict[str, Any]] = state["history"]
        return rows

    def _wrapped(self) -> nn.Module:
        module: nn.Module = self.module
        if self.config.compile:
            module.compile()
        if distributed.world() > 1 and any(p.requires_grad for p in module.parameters()):
            # Each rank keeps buffers of its own, as batch norm of one GPU wants it;
            # those of rank 0 are what is saved and evaluated.
            module = DistributedDataParallel(
                module,
                device_ids=[self.device.index] if self.device.type == "cuda" else None,
                broadcast_buffers=False,
            )
        return module

    def _step(self, raw: Any) -> dict[str, Tensor]:
        self._set_lr()
        self.module.train()
        batch = self.learner.prepare(raw, self.device)
        with self._autocast():
            loss, figures = self.trained(batch)
        finite = _Finite(loss)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        (broken,) = distributed.agree(not finite.check())
        if broken:
            raise NonFiniteLossError(self._keep(batch, float(loss.detach())))
        if self.config.clip is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self._parameters(), self.config.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.progress.step += 1
        return {"loss": loss.detach(), **figures}

    def _record(self, figures: Mapping[str, Tensor], history: History) -> None:
        progress = self.progress
        for name, value in figures.items():
            # On the device: reading a figure would wait for the step that is under way.
            added = value.detach().double()
            progress.sums[name] = progress.sums[name] + added if name in progress.sums else added
        progress.summed += 1
        row_due = (
            progress.step % self.config.log_every == 0
            or progress.step % self.steps_per_epoch == 0
            or progress.step == self.total_steps
        )
        if row_due or self._reporter.due(progress.step):
            means = {name: float(total) / progress.summed for name, total in progress.sums.items()}
            self._reporter.report(progress.step, means)
            if row_due:
                row = {**means, "lr": self.optimizer.param_groups[0]["lr"]}
                history.add(progress.step, progress.step / self.steps_per_epoch, row)
        if row_due:
            progress.sums, progress.summed = {}, 0

    def _evaluate(self, history: History, *, done: bool) -> None:
        step, learner = self.progress.step, self.learner
        due = learner.evaluate_last if done else step % learner.evaluate_every == 0
        if learner.evaluate is None or not due:
            return
        drawn = rng_state()
        self.module.eval()
        with torch.no_grad(), self._autocast():
            figures = learner.evaluate(step)
        set_rng_state(drawn)
        history.add(step, step / self.steps_per_epoch, figures)
        self._reporter.note(step, figures)

    def _save(self, history: History, *, durable: bool) -> None:
        rngs = distributed.gather_objects(rng_state())
        if distributed.rank():
            return
        state = {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": rngs,
            "sums": self.progress.sums,
            "summed": self.progress.summed,
            "history": history.rows,
        }
        save = self.checkpointer.finish if durable else self.checkpointer.save
        save(self.progress.step, state)

    def _set_lr(self) -> None:
        factor = lr_factor(
            self.config.schedule, self.progress.step, self.total_steps, self.steps_per_epoch
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.scaled_lr * factor

    def _parameters(self) -> Iterator[nn.Parameter]:
        for group in self.optimizer.param_groups:
            yield from group["params"]

    def _autocast(self) -> contextlib.AbstractContextManager[None]:
        kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.config.precision)
        if kind is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, kind)

    def _keep(self, batch: Batch, loss: float) -> str:
        """Save the batch that broke the loss; return the message for the error."""
        name = f"nonfinite/step-{self.progress.step}-rank-{distributed.rank()}.safetensors"
        tensors = {key: value.cpu().contiguous() for key, value in batch.items()}
        path = Path(f"{os.environ.get('TMPDIR', '/tmp')}/{os.getpid()}.safetensors")  # noqa: S108
        save_file(tensors, path)
        try:
            self.store.put(path, name)
        finally:
            path.unlink()
        return (
            f"the loss became {loss} at step {self.progress.step} of {self.total_steps}; the "
            f"weights are as they were before it. The batch is in {self.store.url}/{name}. "
            f"Lower lr ({self.config.lr}), set clip ({self.config.clip}), or train with "
            f"precision fp32 ({self.config.precision})"
        )


class _Finite:
    """Whether a loss is finite, found out without waiting for the backward pass."""

    def __init__(self, loss: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if loss.is_cuda:
            # Copied when the forward pass is done, while the backward pass runs.
            self._value = torch.empty((), dtype=loss.dtype, pin_memory=True)
            self._value.copy_(loss.detach(), non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._value = loss.detach()

    def check(self) -> bool:
        if self._event is not None:
            self._event.synchronize()
        return bool(torch.isfinite(self._value))


class _Reporter:
    """Tells how far a training is, about once a second."""

    def __init__(self, total: int, done: int) -> None:
        self.total = total
        self.started = time.monotonic()
        self.first = done
        self.last = 0.0

    def due(self, step: int) -> bool:
        return distributed.rank() == 0 and (time.monotonic() - self.last >= 1 or step == self.total)

    def report(self, step: int, figures: Mapping[str, float]) -> None:
        if not self.due(step):
            return
        now = self.last = time.monotonic()
        rate = (step - self.first) / max(now - self.started, 1e-9)
        shown = {name: round(value, 4) for name, value in figures.items()}
        log.info(
            "progress",
            done=step,
            total=self.total,
            unit="steps",
            per_second=round(rate, 2),
            **shown,
        )

    def note(self, step: int, figures: Mapping[str, float]) -> None:
        if distributed.rank() == 0:
            shown = {name: round(value, 4) for name, value in figures.items()}
            log.info("evaluated", step=step, **shown)


@contextlib.contextmanager
def _termination() -> Iterator[threading.Event]:
    """Turn SIGTERM and SIGINT into an event that the loop looks at after each step."""
    event = threading.Event()

    def request(number: int, frame: FrameType | None) -> None:
        event.set()

    previous = {
        number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
