from dataclasses import replace

import torch

from superpoint_training.augmentation import Photometric
from superpoint_training.config import ShapesConfig
from superpoint_training.samples import VALIDATION, ShapeSamples

CONFIG = ShapesConfig(size=(64, 80))


def test_a_sample_depends_on_seed_stream_and_index_alone() -> None:
    first, again = ShapeSamples(CONFIG, seed=0), ShapeSamples(CONFIG, seed=0)
    first[0]
    assert all(torch.equal(tensor, again[5][name]) for name, tensor in first[5].items())
    others = (ShapeSamples(CONFIG, seed=1), ShapeSamples(CONFIG, seed=0, stream=VALIDATION))
    for other in others:
        assert not torch.equal(first[5]["image"], other[5]["image"])


def test_every_cell_of_a_sample_has_one_answer() -> None:
    samples = ShapeSamples(CONFIG, seed=0)
    corners = 0
    for index in range(30):
        targets = samples[index]["targets"]
        assert torch.equal(targets.sum(dim=0), torch.ones(8, 10))
        corners += int(targets[:64].sum())
    assert corners > 30


def test_only_the_kinds_asked_for_are_drawn() -> None:
    plain = Photometric(share=0.0)
    samples = ShapeSamples(replace(CONFIG, kinds=("ellipses",), photometric=plain), seed=0)
    assert all(int(samples[index]["targets"][:64].sum()) == 0 for index in range(20))
