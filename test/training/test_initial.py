from dataclasses import replace

import pytest
import torch

from superpoint_ros.network.heatmap import heatmap_from_logits
from superpoint_ros.network.superpoint import Architecture, SuperPoint
from superpoint_training.initial import adopt, adoptable, initial_network, new_network

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
    new = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert adoptable(SLIM, start.architecture) == ("encoder", "detector")
    adopt(model, start)
    known = start.state_dict()
    assert {"conv1a.weight", "bn4b.running_var", "convPb.weight"} <= set(known)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, known[name] if name in known else new[name]), name


@pytest.mark.parametrize("descriptor_dim", [16, 24])
def test_a_descriptor_head_is_taken_over_as_a_whole_or_not_at_all(descriptor_dim) -> None:
    model, start = SuperPoint(SLIM), SuperPoint(replace(SLIM, descriptor_dim=descriptor_dim))
    new = model.state_dict()["convDa.weight"].clone()
    adopt(model, start)
    same = descriptor_dim == 16
    assert ("descriptor head" in adoptable(SLIM, start.architecture)) == same
    expected = start.state_dict()["convDa.weight"] if same else new
    assert torch.equal(model.state_dict()["convDa.weight"], expected)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"channels": (4, 8, 8, 8)}, r"channels is \(4, 8, 8, 8\); expected \(4, 8, 8, 16\), as in network.channels"),
        ({"head_channels": 8}, "head_channels is 8; expected 16"),
        ({"batch_norm": False}, "batch_norm is False; expected True"),
        ({"norm_first": True}, "norm_first is True; expected False"),  # whose tensors have the same shapes
        ({"stem": 2}, "stem is 2; expected 1"),
    ],
    ids=str,
)
def test_a_network_that_fits_in_part_is_refused(changes, sentence) -> None:
    """Twenty-six of eighty-four tensors were once taken over without a word."""
    model = SuperPoint(SLIM)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=sentence):
        adopt(model, SuperPoint(replace(SLIM, **changes)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
