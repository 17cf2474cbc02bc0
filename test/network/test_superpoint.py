from __future__ import annotations

import pytest
import torch

import slow
from superpoint_ros.network.superpoint import Architecture, SuperPoint, fold_norms

NAMES_OF_RPAUTRAT = {
    **{f"{n}{ab}": f"backbone.{n - 1}.{i}" for n in (1, 2, 3, 4) for i, ab in enumerate("ab")},
    **{"Pa": "detector.0", "Pb": "detector.1", "Da": "descriptor.0", "Db": "descriptor.1"},
}


def literal(checkpoint, image):
    """The same network, written out; with BatchNorm in rpautrat's names."""
    if checkpoint.architecture.stem == 2:
        return slow.stemmed(checkpoint.state, image)
    if not checkpoint.architecture.batch_norm:
        return slow.magic_leap(checkpoint.state, image)
    renamed = {}
    for layer, theirs in NAMES_OF_RPAUTRAT.items():
        for ours, module in ((f"conv{layer}.", "conv"), (f"bn{layer}.", "bn")):
            for key, value in checkpoint.state.items():
                if key.startswith(ours):
                    renamed[f"{theirs}.{module}.{key[len(ours) :]}"] = value
    return slow.rpautrat(renamed, image)


@pytest.fixture
def image():
    return torch.rand(2, 1, 40, 56, generator=torch.Generator().manual_seed(1))


KINDS = pytest.mark.parametrize(
    "options",
    [{}, {"batch_norm": True}, {"stem": 2}, {"batch_norm": True, "norm_first": True, "stem": 2}],
    ids=["conv-ReLU", "conv-ReLU-BatchNorm", "stem", "stem and conv-BatchNorm-ReLU"],
)


@KINDS
@torch.no_grad()
def test_the_network_equals_its_layers_written_out(random_checkpoint, image, options):
    checkpoint = random_checkpoint(**options)
    logits, descriptors = checkpoint.build()(image)
    expected_logits, expected_descriptors = literal(checkpoint, image)
    torch.testing.assert_close(logits, expected_logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(descriptors, expected_descriptors, rtol=1e-4, atol=1e-5)


def test_the_default_architecture_is_the_papers():
    shapes = {name: tuple(value.shape) for name, value in SuperPoint().named_parameters()}
    outputs = {name[4:6]: shape[0] for name, shape in shapes.items() if name.endswith("weight")}
    assert [outputs[layer] for layer in ("1a", "1b", "2a", "2b")] == [64, 64, 64, 64]
    assert [outputs[layer] for layer in ("3a", "3b", "4a", "4b")] == [128, 128, 128, 128]
    assert [outputs[layer] for layer in ("Pa", "Pb", "Da", "Db")] == [256, 65, 256, 256]
    # as many as in superpoint_v1.pth
    assert sum(value.numel() for value in SuperPoint().parameters()) == 1_300_865


@torch.no_grad()
def test_outputs_are_one_eighth_of_the_image_and_descriptors_have_unit_length(random_checkpoint, image):
    logits, descriptors = random_checkpoint().build()(image)
    assert logits.shape == (2, 65, 5, 7)
    assert descriptors.shape == (2, 16, 5, 7)
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(2, 5, 7))


@torch.no_grad()
def test_magicpoint_has_logits_and_no_descriptors(random_checkpoint, image):
    model = random_checkpoint(descriptor_dim=0).build()
    logits, descriptors = model(image)
    assert logits.shape == (2, 65, 5, 7)
    assert descriptors is None
    assert not any("D" in name for name in model.state_dict())


@torch.no_grad()
def test_folding_the_head_norms_changes_outputs_by_rounding_only(random_checkpoint, image):
    checkpoint = random_checkpoint(batch_norm=True)
    folded = fold_norms(checkpoint.build())
    names = set(folded.state_dict())
    assert not names & {f"bn{layer}.weight" for layer in ("Pa", "Pb", "Da", "Db")}
    assert {f"bn{n}{ab}.weight" for n in (1, 2, 3, 4) for ab in "ab"} <= names
    for got, expected in zip(folded(image), checkpoint.build()(image), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("stem", [1, 2])
def test_norms_before_the_relu_fold_into_plain_convolutions(random_checkpoint, image, stem):
    checkpoint = random_checkpoint(batch_norm=True, norm_first=True, stem=stem)
    folded = fold_norms(checkpoint.build())
    assert folded.architecture == Architecture((4, 4, 8, 8), 16, 16, stem=stem)
    plain = SuperPoint(folded.architecture).eval()
    plain.load_state_dict(folded.state_dict())
    for got, expected in zip(plain(image), checkpoint.build()(image), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    "options",
    [{}, {"batch_norm": True, "descriptor_dim": 0}, {"batch_norm": True, "norm_first": True, "descriptor_dim": 0}],
    ids=str,
)
def test_folding_twice_or_where_there_is_nothing_to_fold_is_harmless(random_checkpoint, image, options):
    checkpoint = random_checkpoint(**options)
    folded = fold_norms(fold_norms(checkpoint.build()))
    torch.testing.assert_close(folded(image)[0], checkpoint.build()(image)[0], rtol=1e-4, atol=1e-5)


def test_folding_a_model_in_training_is_refused():
    model = SuperPoint(Architecture((4, 4, 8, 8), 16, 16, batch_norm=True))
    with pytest.raises(ValueError, match="eval mode"):
        fold_norms(model)


def test_a_stem_or_an_order_of_layers_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="stem must be 1 or 2, got 3"):
        Architecture(stem=3)
    with pytest.raises(ValueError, match="norm_first asks for batch_norm"):
        Architecture(norm_first=True)
