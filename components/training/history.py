"""The history of a training: rows as JSON lines, TensorBoard event files beside them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from components.core.metrics import HISTORY


class History:
    """Rows of figures by step, written as they come.

    After a resume the rows of the checkpoint are written again, so that the files
    hold each step once, whatever happened.
    """

    def __init__(self, folder: Path | None, rows: list[dict[str, Any]]) -> None:
        """Begin with the rows of a checkpoint.

        Args:
            folder: Where the files go; None keeps the rows in memory only.
            rows: Those up to the step that training continues from.
        """
        self.rows: list[dict[str, Any]] = []
        self._file = folder and (folder / HISTORY).open("w", encoding="utf-8")
        self._board = folder and SummaryWriter(str(folder / "tensorboard"))
        for row in rows:
            self._write(row)

    def add(self, step: int, epoch: float, figures: Mapping[str, float]) -> None:
        """Add a row of figures at a step (counted from 1) and a position in epochs."""
        self._write({"step": step, "epoch": round(epoch, 6), **figures})

    def curve(self, figure: str) -> list[tuple[float, float]]:
        """Return one figure over epochs."""
        return [(row["epoch"], row[figure]) for row in self.rows if figure in row]

    def curves(self, ends: Mapping[str, float]) -> dict[str, list[tuple[float, float]]]:
        """Return the losses over epochs, and what was followed of the figures of the end.

        Args:
            ends: Figures of the trained model, with which their curves end.
        """
        names = {name: None for row in self.rows for name in row if "loss" in name or name in ends}
        last = self.rows[-1]["epoch"] if self.rows else 0.0
        return {
            name: [*self.curve(name), *([(last, ends[name])] if name in ends else [])]
            for name in names
        }

    def close(self) -> None:
        """Finish the files."""
        if self._file and self._board:
            self._file.close()
            self._board.close()

    def _write(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if self._file and self._board:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
            for name, value in row.items():
                if name not in ("step", "epoch"):
                    self._board.add_scalar(name, value, row["step"])
