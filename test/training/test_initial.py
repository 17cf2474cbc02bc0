from dataclasses import replace

import pytest
import torch

from superpoint_ros.network.heatmap import heatmap_from_logits
from superpoint_ros.network.superpoint import Architecture, SuperPoint
from superpoint_training.initial import adopt, initial_network, new_network

SLIM = Architecture((4, 8, 8, 16), 16, 16, batch_norm=True)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_new_network_expects_a_keypoint_in_few_cells(batch_norm) -> None:
    torch.manual_seed(0)
    model = new_network(replace(SLIM, batch_norm=batch_norm))
    with torch.no_grad():
        logits, _ = model(torch.rand(2, 1, 64, 80))
    share = heatmap_from_logits(logits).sum() / logits[:, 0].numel()
    assert 0.005 < share < 0.15


def test_a_detector_can_start_from_a_network_with_descriptors() -> None:
    start = SuperPoint(SLIM)
    model = initial_network(replace(SLIM, descriptor_dim=0), start)
    assert torch.equal(model.state_dict()["conv1a.weight"], start.state_dict()["conv1a.weight"])
    assert not any("Da" in name for name in model.state_dict())


def test_magicpoints_weights_are_taken_over() -> None:
    model, start = SuperPoint(SLIM), SuperPoint(replace(SLIM, descriptor_dim=0))
    adopted = adopt(model, start)
    assert "convPb.weight" in adopted and "convDa.weight" not in adopted
    for name in adopted:
        assert torch.equal(model.state_dict()[name], start.state_dict()[name])


def test_weights_of_another_width_are_refused() -> None:
    other = SuperPoint(Architecture((5, 5, 5, 5), 7, 9, batch_norm=False))
    with pytest.raises(ValueError, match="shares no layer"):
        adopt(SuperPoint(SLIM), other)
