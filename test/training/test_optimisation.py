import pytest

from superpoint_training.optimisation import Optimisation, learning_rate


def test_learning_rate_warms_up_and_follows_the_schedule() -> None:
    cosine = Optimisation(learning_rate=1.0, schedule="cosine", warmup=10)
    assert learning_rate(cosine, 4, 0.0) == pytest.approx(0.5)
    assert learning_rate(cosine, 50, 0.5) == pytest.approx(0.5)
    assert learning_rate(cosine, 100, 1.0) == pytest.approx(0.0, abs=1e-6)
    assert learning_rate(Optimisation(learning_rate=1.0), 5, 0.9) == 1.0
