import math

import pytest
import torch

from superpoint_training.best import Best


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"weight": torch.tensor([value])}


@pytest.mark.parametrize(("figure", "best"), [("map", 2.0), ("-map", 1.0)])
def test_the_best_weights_are_kept_and_the_wait_is_counted(figure: str, best: float) -> None:
    kept = Best(figure)
    for step, value in enumerate((1.5, 2.0, 1.0, 1.2), start=1):
        kept.offer(step, {"map": value}, weights(value))
    assert kept.model["weight"].item() == best and kept.figures == {"map": best}
    assert (kept.step, kept.waited) == ((2, 2) if best == 2 else (3, 1))


def test_a_figure_that_is_no_number_is_beaten_by_any() -> None:
    kept = Best("error")
    kept.offer(0, {"error": math.nan}, weights(0))
    kept.offer(1, {"error": 0.1}, weights(1))
    assert kept.step == 1


def test_weights_are_copies() -> None:
    kept, now = Best("map"), weights(1)
    kept.offer(1, {"map": 1.0}, now)
    now["weight"] += 1
    assert kept.model["weight"].item() == 1


def test_a_figure_that_the_validation_has_not_is_refused_with_those_it_has() -> None:
    with pytest.raises(ValueError, match="no figure 'mpa'; it has map, error"):
        Best("mpa").offer(0, {"map": 1.0, "error": 0.0}, {})
    with pytest.raises(ValueError, match="it has none, as no picture is held out"):
        Best("map").offer(0, {}, {})
