from dataclasses import replace

import pytest
import torch

from superpoint_ros.network.superpoint import Architecture, SuperPoint
from superpoint_training.optimisation import Optimisation, freeze, learning_rate, to_training

NORMED = Architecture((4, 4, 8, 8), 16, 8, batch_norm=True)


def test_learning_rate_warms_up_and_follows_the_schedule() -> None:
    cosine = Optimisation(learning_rate=1.0, schedule="cosine", warmup=10)
    assert learning_rate(cosine, 4, 0.0) == pytest.approx(0.5)
    assert learning_rate(cosine, 50, 0.5) == pytest.approx(0.5)
    assert learning_rate(cosine, 100, 1.0) == pytest.approx(0.0, abs=1e-6)
    assert learning_rate(Optimisation(learning_rate=1.0), 5, 0.9) == 1.0


def test_frozen_stages_have_no_gradient_and_keep_their_statistics() -> None:
    settings = Optimisation(freeze_stages=2)
    model = SuperPoint(NORMED)
    freeze(model, settings)
    to_training(model, settings)
    logits, _ = model(torch.rand(2, 1, 32, 32))
    logits.sum().backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert {name[4] for name in learning if name.startswith("conv")} == {"3", "4", "P"}
    moved = {name for name, value in model.named_buffers() if name.endswith("running_mean") and value.abs().sum() > 0}
    assert moved == {f"bn{layer}.running_mean" for layer in ("3a", "3b", "4a", "4b", "Pa", "Pb", "Da", "Db")}


def test_frozen_norms_keep_their_statistics_and_learn_their_scale() -> None:
    settings = Optimisation(freeze_norms=True)
    model = SuperPoint(NORMED)
    freeze(model, settings)
    to_training(model, settings)
    logits, _ = model(torch.rand(2, 1, 32, 32))
    logits.sum().backward()
    assert all(value.abs().sum() == 0 for name, value in model.named_buffers() if name.endswith("running_mean"))
    assert model.get_parameter("bn1a.weight").grad is not None


def test_the_norms_of_many_gpus_are_frozen_and_paced_as_those_of_one() -> None:
    model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(SuperPoint(NORMED))
    to_training(model, Optimisation(freeze_stages=1, norm_momentum=0.02))
    norms = {name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.SyncBatchNorm)}
    assert {name for name, layer in norms.items() if not layer.training} == {"bn1a", "bn1b"}
    assert {layer.momentum for layer in norms.values()} == {0.02}


def test_settings_that_make_no_sense_are_refused_by_name() -> None:
    for wrong, words in (
        ({"eps": 0.0}, "eps must be above 0"),
        ({"freeze_stages": 5}, "freeze_stages must be between 0 and 4"),
        ({"patience": 2}, "patience is of `best`"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
    ):
        with pytest.raises(ValueError, match=words):
            replace(Optimisation(), **wrong)
