"""The weights that did best in a run's validations, and how long ago that was."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

State = dict[str, Any]


class Best:
    """Judged by one figure of the validation.

    figure  its name; a minus before it where less is better

    step, figures, model  of the best so far; the model on the CPU
    waited                validations since
    """

    def __init__(self, figure: str) -> None:
        self.name, self._sign = figure.removeprefix("-"), -1.0 if figure.startswith("-") else 1.0
        self.step, self.waited = 0, 0
        self.figures: dict[str, float] = {}
        self.model: dict[str, Tensor] = {}

    def offer(self, step: int, figures: Mapping[str, float], model: Mapping[str, Tensor]) -> None:
        """Take weights over if they are better. Raises ValueError where the figure is none of the validation's."""
        if self.name not in figures:
            known = f"it has {', '.join(figures)}" if figures else "it has none, as no picture is held out"
            raise ValueError(f"best: the validation has no figure {self.name!r}; {known}")
        if self.model and not self._value(figures) > self._value(self.figures):
            self.waited += 1
            return
        self.step, self.waited, self.figures = step, 0, dict(figures)
        self.model = {name: tensor.detach().cpu().clone() for name, tensor in model.items()}

    def _value(self, figures: Mapping[str, float]) -> float:
        value = self._sign * figures[self.name]
        return value if math.isfinite(value) else -math.inf  # a mean of nothing is no number

    def state_dict(self) -> State:
        """For a run's state file."""
        return {"step": self.step, "waited": self.waited, "figures": self.figures, "model": self.model}

    def load_state_dict(self, state: State) -> None:
        """What `state_dict` gave."""
        self.step, self.waited = state["step"], state["waited"]
        self.figures, self.model = state["figures"], state["model"]
