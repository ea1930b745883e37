"""Learning-rate schedules as a pure function of the step, so that a resume needs no state."""

import math

from components.training.config import Schedule


def lr_factor(schedule: Schedule, step: int, total_steps: int, steps_per_epoch: int) -> float:
    """Return the factor of the base learning rate for a step, counted from 0.

    A drop at fraction f of training applies from step `round(f * total_steps)` on; drops that
    come every n iterations do not wait for the end of an epoch.
    """
    counted = step // steps_per_epoch * steps_per_epoch if schedule.by_epoch else step
    if schedule.kind == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * counted / total_steps))
    elif schedule.every is not None:
        factor = schedule.gamma ** (step // schedule.every)
    else:
        passed = sum(counted >= round(drop * total_steps) for drop in schedule.drops)
        factor = schedule.gamma**passed
    if step < schedule.warmup:
        growth = step / schedule.warmup
        factor *= schedule.warmup_factor * (1 - growth) + growth
    return factor
