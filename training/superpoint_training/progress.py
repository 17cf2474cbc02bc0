"""What the leading process shows of a run: a bar with loss, speed and time left; a journal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from superpoint_training.journal import Journal


class Progress:
    """Shown on the terminal and written to the journal in `folder`; the other processes have none.

    name        of the task
    unit        what a batch holds: images or pairs
    first_step  the run starts, or goes on, after this many of `last_step` steps
    """

    def __init__(self, name: str, unit: str, batch_size: int, first_step: int, last_step: int, folder: Path) -> None:
        self._name, self._unit, self._batch_size = name, unit, batch_size
        self._first_step, self._last_step = first_step, last_step
        self._started = time.monotonic()
        self._journal = Journal(folder, first_step)
        self._bar = tqdm(
            total=last_step, initial=first_step, desc=name, unit="step", dynamic_ncols=True, mininterval=1.0
        )

    def step(self, step: int, seconds: float, left: float, scalars: Mapping[str, float]) -> None:
        """After a step, `seconds` into the run, with `left` seconds of budget."""
        done = step - self._first_step
        pace = max(time.monotonic() - self._started, 1e-9) / done  # seconds a step
        left = min(left, pace * (self._last_step - step))
        speed = self._batch_size / pace
        self._bar.set_postfix_str(
            f"loss {scalars['loss']:.4g}, {speed:.0f} {self._unit}/s, {left / 60:.1f} min left", refresh=False
        )
        self._bar.update()
        self._journal.scalars(step, seconds, {**scalars, f"{self._unit}_per_second": speed})

    def validation(
        self, step: int, seconds: float, figures: Mapping[str, float], pictures: Mapping[str, object]
    ) -> None:
        """After a validation; pictures are (H, W, 3) uint8 RGB."""
        self._journal.validation(step, seconds, figures, pictures)
        told = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        tqdm.write(f"{self._name}: step {step}, {seconds / 60:.1f} min: {told or 'no validation'}")

    def close(self) -> None:
        """End the bar and the journal."""
        self._bar.close()
        self._journal.close()
