"""Reasons to stop training early: a signal, or a loss that makes no sense."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from superpoint_training.state import STATE_FILE

FIRST_STEPS = 20  # in which the loss may do what it likes


class TrainingDiverged(RuntimeError):
    """The loss is no number, or has exploded; names the step and the last good checkpoint."""


def check_loss(
    figures: Mapping[str, float], usual: float, step: int, explosion: float, task: str, folder: Path
) -> float:
    """The running mean of the loss after a step; `usual` is the one before.

    figures    of the step, "loss" among them
    explosion  how many times its running mean the loss may be
    folder     where the checkpoint lies

    Raises TrainingDiverged.
    """
    loss = figures["loss"]
    kept = f"the last good checkpoint is {folder / STATE_FILE}"
    wrong = [name for name, value in figures.items() if not abs(value) < float("inf")]
    if wrong:
        raise TrainingDiverged(f"{task}: {wrong[0]} is {figures[wrong[0]]} at step {step}; {kept}")
    if step > FIRST_STEPS and loss > explosion * usual:
        raise TrainingDiverged(
            f"{task}: the loss is {loss:.4g} at step {step}, {loss / usual:.0f} times its running "
            f"mean of {usual:.4g}; {kept}"
        )
    return loss if step == 1 else 0.95 * usual + 0.05 * loss


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """While inside, SIGINT and SIGTERM ask for a stop after the current step; a second SIGINT
    interrupts at once.
    """
    asked: list[int] = []

    def ask(number: int, _: FrameType | None) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
