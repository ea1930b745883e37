"""Signs that a training goes wrong, said in its log while there is time to stop it."""

import time
from collections.abc import Callable, Mapping, Sequence

from components.core.log import get_logger

IN_CODE_DIGEST = False  # what a log shows, no result is computed from

Row = Mapping[str, float]
"""Of a training's history: figures by name, with `step`."""

WINDOW = 60.0  # seconds over which a rate is taken
BEGINNING, LOOKED_AT = 0.02, 0.2  # shares of training: what a loss is compared with, and when
PARTS = 20
FALLEN = 0.99  # a loss that stands is more than this share of what it was
SURE = 99.0  # percent, of the pretext accuracy
LOST = 1.0  # percent that the kNN accuracy has lost since its best
STARVED = 0.25  # share of time that the device waits for batches

log = get_logger(__name__)


class Signs:
    """Looks at a training as it goes.

    Each sign is said once; a slow rate, and a device that waits for data, each time they come.
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin to look.

        Args:
            total: Steps of the training.
            clock: Gives seconds.
        """
        self.total = total
        self.clock = clock
        self._best = 0.0
        self._slow = self._starved = False
        self._window: tuple[int, float, float] | None = None
        self._said: set[str] = set()
        self._part = 0

    def stepped(self, step: int, waited: float) -> None:
        """Look at the rate of the last minute, and at what of it was spent waiting for data.

        Args:
            step: How far the training is.
            waited: Seconds since it began that the device had nothing to do for want of a batch.
        """
        now = self.clock()
        if self._window is None:
            self._window = (step, now, waited)
            return
        first, since, before = self._window
        if now - since < WINDOW:
            return
        rate = (step - first) / (now - since)
        share = (waited - before) / (now - since)
        self._window = (step, now, waited)
        if share > STARVED and not self._starved:
            log.warning(
                "steps wait for data: raise loader.workers, or bring the data nearer",
                percent_of_time=round(100 * share),
            )
        self._starved = share > STARVED
        if rate < self._best / 2 and not self._slow:
            log.warning("the rate fell by half", per_second=_short(rate), was=_short(self._best))
        self._slow = rate < self._best / 2
        self._best = max(self._best, rate)

    def paused(self) -> None:
        """Leave out of the rate what was not training: an evaluation."""
        self._window = None

    def recorded(self, rows: Sequence[Row]) -> None:
        """Look at the history after a row was added, twenty times in a training."""
        part = int(PARTS * rows[-1]["step"] / self.total)
        if part == self._part:
            return
        self._part = part
        if self._loss_stands(rows):
            self._say("the loss stands where it began: lower lr, or look at the data")
        if _knows_by_statistics(rows):
            self._say(
                "the pretext task is solved while kNN accuracy falls: the keys' batch statistics "
                "give the answer away, which shuffling is for (Appendix A.9)"
            )

    def _loss_stands(self, rows: Sequence[Row]) -> bool:
        losses = [(row["step"] / self.total, row["loss"]) for row in rows if "loss" in row]
        if not losses or losses[-1][0] < LOOKED_AT:
            return False
        end = losses[-1][0]
        if losses[0][0] > end - BEGINNING:
            return False  # the first row is the last
        early = [loss for share, loss in losses if share <= BEGINNING] or [losses[0][1]]
        late = [loss for share, loss in losses if share > end - BEGINNING]
        began, stands = sum(early) / len(early), sum(late) / len(late)
        return began > 0 and stands > FALLEN * began

    def _say(self, words: str) -> None:
        if words not in self._said:
            self._said.add(words)
            log.warning(words)


def _knows_by_statistics(rows: Sequence[Row]) -> bool:
    """Say whether pretext accuracy is nearly whole and kNN accuracy has fallen (Appendix A.9)."""
    pretext = [row["pretext_accuracy"] for row in rows if "pretext_accuracy" in row]
    votes = [row["knn_accuracy"] for row in rows if "knn_accuracy" in row]
    return bool(pretext and votes) and pretext[-1] > SURE and votes[-1] < max(votes) - LOST


def _short(rate: float) -> float:
    return round(rate, 2)
