"""The training loop of every stage: steps, schedule, mixed precision, checkpoints, interruption."""

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from pydantic import JsonValue
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from components.core.errors import ConfigError, Interrupted, NonFiniteLossError
from components.core.log import get_logger
from components.core.store import open_store
from components.training import distributed
from components.training.ahead import Ahead
from components.training.checkpoint import FORCE, Checkpointer, State, rng_state, set_rng_state
from components.training.config import TrainingConfig
from components.training.history import History
from components.training.learner import Learner
from components.training.machine import Arithmetic, choose_arithmetic
from components.training.optimizer import make_optimizer, momenta, restore_momenta, set_lr
from components.training.schedule import lr_factor
from components.training.signs import Signs
from components.training.step import CapturedStep, LaunchedStep, TrainingStep
from components.training.watch import Broken, LossWatch, Reporter, termination

log = get_logger(__name__)


@dataclass
class Progress:
    """Where a training stands; what is not in the module or the optimiser."""

    step: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    summed: int = 0


@dataclass(frozen=True)
class Trained:
    """What the loop tells when training has ended.

    Attributes:
        history: Figures over the steps; only rank 0 has written them to files.
        told: How and on what it was computed, for manifests and reports; also what differed, if
            it was made to go on from another training's checkpoint.
    """

    history: History
    told: Mapping[str, JsonValue]


def train(
    learner: Learner,
    config: TrainingConfig,
    *,
    total_steps: int,
    state: str,
    identity: State,
    output: Path,
) -> Trained:
    """Train to the end, continuing from the newest checkpoint; every rank calls it.

    Args:
        learner: Model, data and evaluation.
        config: The stage's config.
        total_steps: Length of training, in steps.
        state: Folder or URL for checkpoints.
        identity: Which training this is; a checkpoint of another one is refused.
        output: Folder for the history.

    Raises:
        Interrupted: after SIGTERM, once a checkpoint is durable.
        NonFiniteLossError: before anything that the loss has touched is saved.
        ConfigError: if the checkpoint belongs to another training or cannot be continued by this
            one, this machine does not have its arithmetic, or a step does not fit into the GPU's
            memory.
    """
    # Rank 0's: only the first node looks into the data, and the training is the same everywhere.
    identity = {**distributed.gather_objects(identity)[0], "processes": distributed.world()}
    checkpointer = Checkpointer(open_store(state), identity)
    saved = checkpointer.load(force=os.environ.get(FORCE) == "1")
    if saved and saved[0] > total_steps:
        raise ConfigError(
            f"the checkpoint in {checkpointer.store.url} is of step {saved[0]}, but this training "
            f"ends at step {total_steps}: train longer, or remove the folder to start over"
        )
    begun = saved[1].get("arithmetic") if saved else None
    arithmetic = choose_arithmetic(config, begun)
    loop = _Loop(learner, config, total_steps, checkpointer, arithmetic)
    rows = loop.restore(*saved) if saved else []
    history = History(output if distributed.rank() == 0 else None, rows)
    with termination() as terminated:
        try:
            loop.run(history, terminated)
        except torch.OutOfMemoryError as error:
            raise _too_large(config, loop.progress.step, error) from None
        finally:
            loop.checkpointer.wait()
            history.close()
    told = arithmetic.told()
    if checkpointer.forced:
        told["forced_resume"] = [*checkpointer.forced]
    return Trained(history, told)


class _Loop:
    def __init__(
        self,
        learner: Learner,
        config: TrainingConfig,
        total_steps: int,
        checkpointer: Checkpointer,
        arithmetic: Arithmetic,
    ) -> None:
        self.learner = learner
        self.config = config
        self.total_steps = total_steps
        self.steps_per_epoch = learner.batches.steps
        self.checkpointer = checkpointer
        self.arithmetic = arithmetic
        self.device = distributed.device()
        self.progress = Progress()
        self.module = learner.module.to(self.device)
        if arithmetic.channels_last:
            self.module.to(memory_format=torch.channels_last)
        self.optimizer = make_optimizer(self.module, config, learner.norm_weight_decay)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=arithmetic.precision == "fp16")
        if config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for
            torch.use_deterministic_algorithms(True)
        self.watch = LossWatch()
        self.step = self._make_step()

    def run(self, history: History, terminated: threading.Event) -> None:
        """Train from where the progress stands to the end."""
        if self.progress.step == self.total_steps:
            return  # an earlier attempt trained to the end, and failed after that
        self._reporter = Reporter(self.total_steps, self.progress.step)
        self._signs = Signs(self.total_steps) if distributed.rank() == 0 else None
        last_save = time.monotonic()
        raw = self.learner.batches.between(self.progress.step, self.total_steps)
        ahead = Ahead(raw, self.learner.prepare, self.device, self.progress.step)
        self.module.train()
        while (batch := ahead.take()) is not None:
            set_lr(self.optimizer, self._lr())
            figures = self.step(batch)
            ahead.fetch()
            broken = self.watch.add(self.progress.step, batch, figures["loss"])
            self.progress.step += 1
            self._record(figures, history, ahead.waited)
            due = time.monotonic() - last_save >= self.config.checkpoint_seconds
            failed, save, stop = distributed.agree(broken is not None, due, terminated.is_set())
            done = self.progress.step == self.total_steps
            evaluate = self._evaluation_due(done=done)
            if not failed and (save or stop or evaluate or done):
                broken = self.watch.finish()
                (failed,) = distributed.agree(broken is not None)
            if failed:
                raise NonFiniteLossError(self._keep(broken))
            if evaluate:
                self._evaluate(history)
            if stop and not done:
                self._save(history, durable=True)
                raise Interrupted(
                    f"stopped at step {self.progress.step} of {self.total_steps}; "
                    "the checkpoint is safe, run the same command to continue"
                )
            if save and not done:
                self._save(history, durable=False)
                last_save = time.monotonic()
        self._save(history, durable=True)

    def restore(self, step: int, state: State) -> list[dict[str, Any]]:
        """Go on from a checkpoint; return the history's rows up to it.

        Raises:
            ConfigError: if it is of another model, which only a forced resume gets as far as.
        """
        self._check_fits(state)
        self.module.load_state_dict(state["module"])
        if state["momenta"] and self.config.momentum:
            restore_momenta(self.optimizer, state["momenta"])
        if state["scaler"]:  # empty where no loss was scaled
            self.scaler.load_state_dict(state["scaler"])
        self._restore_randomness(step, state["rng"])
        sums = {name: total.to(self.device) for name, total in state["sums"].items()}
        self.progress = Progress(step, sums, state["summed"])
        log.info("continuing from a checkpoint", step=step, total=self.total_steps)
        rows: list[dict[str, Any]] = state["history"]
        return rows

    def _check_fits(self, state: State) -> None:
        """Refuse a checkpoint whose model or learned parameters are others than ours."""
        saved, own = state["module"], self.module.state_dict()
        faults = [
            f"{name}: {_shape(saved.get(name))} in the checkpoint, {_shape(own.get(name))} here"
            for name in sorted({*saved, *own})
            if _shape(saved.get(name)) != _shape(own.get(name))
        ]
        remembered, ours = state["momenta"], momenta(self.optimizer)
        if not faults and remembered and ours and len(remembered) != len(ours):
            faults = [f"{len(remembered)} tensors were learned, now {len(ours)}"]
        if faults:
            more = f"\n  and {len(faults) - 5} more" if len(faults) > 5 else ""
            raise ConfigError(
                f"the checkpoint in {self.checkpointer.store.url} does not fit this model, and no "
                "resume can be forced:\n  "
                + "\n  ".join(faults[:5])
                + f"{more}\nRestore config and data, or remove the folder to start over"
            )

    def _restore_randomness(self, step: int, saved: Sequence[Mapping[str, Any]]) -> None:
        """Take this process's random state; one that the checkpoint has none for gets a new one."""
        rank, world = distributed.rank(), distributed.world()
        if rank < len(saved):
            set_rng_state(saved[rank])
        else:
            seeds = np.random.SeedSequence((self.config.seed, step, rank))
            torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0]))
        if world != len(saved) and rank == 0:
            log.warning(
                "the checkpoint is of another number of processes: further ones begin with new "
                "random states",
                was=len(saved),
                now=world,
            )

    def _make_step(self) -> TrainingStep:
        on_gpu = self.device.type == "cuda"
        possible = on_gpu and self.learner.uniform and distributed.captures()
        capture = possible if self.config.cuda_graph == "auto" else self.config.cuda_graph
        if capture and not possible:
            raise ConfigError(
                "cuda_graph: only a GPU's steps can be captured, only where all batches have equal "
                "shapes, and not where processes share a GPU; auto captures where it can"
            )
        stream = torch.cuda.Stream(self.device) if capture else None
        with torch.cuda.stream(stream):  # of None, the current one
            step = LaunchedStep(
                self._wrapped(), self.optimizer, self.scaler, self.arithmetic, self.config.clip
            )
        return step if stream is None else CapturedStep(step, stream)

    def _wrapped(self) -> nn.Module:
        module: nn.Module = self.module
        if self.arithmetic.compiled:
            module.compile()
        if dist.is_initialized() and any(p.requires_grad for p in module.parameters()):
            # Each rank keeps buffers of its own, as batch norm of one GPU wants it;
            # those of rank 0 are what is saved and evaluated.
            module = DistributedDataParallel(  # without device_ids, batches stay as they are
                module,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
                static_graph=self.learner.uniform,
            )
        return module

    def _record(self, figures: Mapping[str, Tensor], history: History, waited: float) -> None:
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
            if self._signs:
                self._signs.stepped(progress.step, waited)
            if row_due:
                row = {**means, "lr": self._lr(progress.step - 1)}
                history.add(progress.step, progress.step / self.steps_per_epoch, row)
                if self._signs:
                    self._signs.recorded(history.rows)
        if row_due:
            progress.sums, progress.summed = {}, 0

    def _evaluation_due(self, *, done: bool) -> bool:
        learner = self.learner
        if learner.evaluate is None:
            return False
        if done:
            return learner.evaluate_last
        return self.progress.step % learner.evaluate_every == 0

    def _evaluate(self, history: History) -> None:
        assert self.learner.evaluate is not None
        step = self.progress.step
        drawn = rng_state()
        self.module.eval()
        with torch.no_grad(), self.arithmetic.autocast(self.device):
            figures = self.learner.evaluate(step)
        self.module.train()
        set_rng_state(drawn)
        history.add(step, step / self.steps_per_epoch, figures)
        self._reporter.note(step, figures)
        if self._signs:
            self._signs.paused()

    def _save(self, history: History, *, durable: bool) -> None:
        rngs = distributed.gather_objects(rng_state())
        if distributed.rank():
            return
        state = {
            "module": self.module.state_dict(),
            "momenta": momenta(self.optimizer),
            "scaler": self.scaler.state_dict(),
            "arithmetic": self.arithmetic.told(),
            "rng": rngs,
            "sums": self.progress.sums,
            "summed": self.progress.summed,
            "history": history.rows,
        }
        save = self.checkpointer.finish if durable else self.checkpointer.save
        save(self.progress.step, state)

    def _lr(self, step: int | None = None) -> float:
        """Return the learning rate of a step, by default of the coming one."""
        at = self.progress.step if step is None else step
        factor = lr_factor(self.config.schedule, at, self.total_steps, self.steps_per_epoch)
        return self.config.scaled_lr * factor

    def _keep(self, broken: Broken | None) -> str:
        """Save the batch that broke the loss of this rank, if any; return the error's message.

        Collective: every rank has the message of the first one whose loss broke.
        """
        message, store = None, self.checkpointer.store
        if broken is not None:
            name = f"nonfinite/step-{broken.step}-rank-{distributed.rank()}.safetensors"
            tensors = {key: value.cpu().contiguous() for key, value in broken.batch.items()}
            path = Path(f"{os.environ.get('TMPDIR', '/tmp')}/{os.getpid()}.safetensors")  # noqa: S108
            save_file(tensors, path)
            try:
                store.put(path, name)
            finally:
                path.unlink()
            message = (
                f"the loss became {broken.loss} at step {broken.step} of {self.total_steps}; no "
                f"checkpoint has been written since. The batch is in {store.url}/{name}. "
                f"Lower lr ({self.config.lr}), set clip ({self.config.clip}), or train with "
                f"precision fp32 ({self.arithmetic.precision})"
            )
        return next(filter(None, distributed.gather_objects(message)))


def _shape(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else "×".join(map(str, tensor.shape)) or "one number"


def _too_large(config: TrainingConfig, step: int, error: Exception) -> ConfigError:
    free, total = torch.cuda.mem_get_info()
    share = -(-config.batch_size // distributed.world())
    return ConfigError(
        f"out of memory at step {step}: {share} image(s) of batch_size {config.batch_size} do not "
        f"fit into this GPU ({torch.cuda.get_device_name()}, {total / 2**30:.0f} GiB, "
        f"{free / 2**30:.1f} free). Lower batch_size, use more GPUs, or precision bf16 or fp16 "
        f"instead of fp32; a checkpoint continues with as many processes, unless {FORCE}=1. "
        f"({str(error).partition('. ')[0]})"
    )
