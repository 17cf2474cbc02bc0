from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from superpoint_ros.network import checkpoint as checkpoint_module
from superpoint_ros.network.checkpoint import (
    DEFAULT_WEIGHTS,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from superpoint_ros.network.superpoint import Architecture, SuperPoint


def assert_same_state(got, expected):
    assert set(got) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor), name


def refusal(path):
    """The one sentence with which a file is refused."""
    with pytest.raises(ValueError) as error:
        load_checkpoint(path)
    sentence = str(error.value)
    assert sentence.startswith(f"{path}: ")
    assert "\n" not in sentence
    return sentence


# Our own format


@pytest.mark.parametrize(
    "options", [{}, {"batch_norm": True}, {"stem": 2}, {"batch_norm": True, "norm_first": True}], ids=str
)
@pytest.mark.parametrize("descriptor_dim", [0, 16])
def test_a_saved_checkpoint_is_loaded_as_it_was(random_checkpoint, tmp_path, options, descriptor_dim):
    checkpoint = random_checkpoint(descriptor_dim=descriptor_dim, **options)
    metadata = {"name": "mine", "licence": "CC-BY-4.0", "training_data": "Grüße, 3 px"}
    checkpoint = Checkpoint(checkpoint.architecture, checkpoint.state, metadata)
    save_checkpoint(tmp_path / "mine.safetensors", checkpoint)
    loaded = load_checkpoint(str(tmp_path / "mine.safetensors"))
    assert loaded.architecture == checkpoint.architecture
    assert loaded.metadata == metadata
    assert loaded.layout == "superpoint_ros"
    assert loaded.weights_id == checkpoint.weights_id
    assert_same_state(loaded.state, checkpoint.state)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.safetensors"]


def test_a_file_without_a_stem_says_what_older_versions_read(random_checkpoint, tmp_path):
    save_checkpoint(tmp_path / "plain.safetensors", random_checkpoint())
    with safe_open(tmp_path / "plain.safetensors", framework="pt") as file:
        said = json.loads(file.metadata()["architecture"])
    assert said == {"channels": [4, 4, 8, 8], "head_channels": 16, "descriptor_dim": 16, "batch_norm": False}


def test_a_save_that_fails_leaves_the_old_file_and_no_other(random_checkpoint, tmp_path):
    path = tmp_path / "mine.safetensors"
    good = random_checkpoint()
    save_checkpoint(path, good)
    with pytest.raises(Exception, match="(?i)str"):
        save_checkpoint(path, Checkpoint(good.architecture, good.state, {"epoch": 3}))
    assert [file.name for file in tmp_path.iterdir()] == ["mine.safetensors"]
    assert load_checkpoint(path).weights_id == good.weights_id


def test_a_save_that_is_interrupted_leaves_no_file(random_checkpoint, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(tmp_path / "mine.safetensors", random_checkpoint())
    assert list(tmp_path.iterdir()) == []


def test_a_built_network_is_in_eval_mode_and_leaves_the_checkpoint_alone(random_checkpoint):
    checkpoint = random_checkpoint(batch_norm=True)
    before = {name: tensor.clone() for name, tensor in checkpoint.state.items()}
    model = checkpoint.build()
    assert not model.training
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert_same_state(checkpoint.state, before)


def test_the_weights_id_is_the_name_and_a_hash_of_all_tensors(random_checkpoint):
    checkpoint = random_checkpoint(batch_norm=True)
    content = b"".join(name.encode() + checkpoint.state[name].numpy().tobytes() for name in sorted(checkpoint.state))
    assert checkpoint.weights_id == "tiny@" + hashlib.sha256(content).hexdigest()[:8]
    backwards = dict(reversed(checkpoint.state.items()))
    again = Checkpoint(checkpoint.architecture, backwards, checkpoint.metadata, "rpautrat")
    assert again.weights_id == checkpoint.weights_id


def test_the_weights_id_changes_with_a_single_weight(random_checkpoint):
    checkpoint = random_checkpoint()
    state = {**checkpoint.state, "convDb.bias": checkpoint.state["convDb.bias"].clone()}
    state["convDb.bias"][3] += 1e-6
    changed = Checkpoint(checkpoint.architecture, state, checkpoint.metadata)
    assert changed.weights_id != checkpoint.weights_id


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_loaded_and_have_an_id(random_checkpoint, tmp_path, dtype):
    checkpoint = random_checkpoint()
    half = {name: tensor.to(dtype) for name, tensor in checkpoint.state.items()}
    save_checkpoint(tmp_path / "half.safetensors", Checkpoint(checkpoint.architecture, half))
    loaded = load_checkpoint(tmp_path / "half.safetensors")
    assert loaded.weights_id.startswith("unnamed@")
    weight = loaded.build().conv3a.weight
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight, checkpoint.state["conv3a.weight"], rtol=1e-2, atol=1e-3)


# The default weights


def test_the_default_weights_name_their_origin_and_licence():
    checkpoint = load_checkpoint(DEFAULT_WEIGHTS)
    assert checkpoint.architecture == Architecture(batch_norm=True)
    assert {"name", "licence", "source", "training_data"} <= set(checkpoint.metadata)
    assert checkpoint.weights_id.startswith(checkpoint.metadata["name"] + "@")


def test_the_default_weights_are_small_and_say_how_they_were_made():
    metadata = load_checkpoint(DEFAULT_WEIGHTS).metadata
    assert DEFAULT_WEIGHTS.stat().st_size < 6e6
    assert {"recipe", "source_commit", "data_licence", "metrics"} <= set(metadata)
    assert "label_sigma" in metadata["recipe"]


# Files that are no SuperPoint


def test_a_missing_file_or_a_folder_is_named(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(FileNotFoundError, match="no such weights file") as error:
            load_checkpoint(path)
        assert str(path) in str(error.value)


class RunsCode:
    """Unpickling it creates a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("zipped", [True, False], ids=["torch file", "bare pickle"])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path, zipped):
    marker, path = tmp_path / "marker", tmp_path / "evil.pth"
    content = {"conv1a.weight": torch.zeros(1), "extra": RunsCode(marker)}
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    assert "it holds other Python objects beside its tensors (" in refusal(path)
    assert not marker.exists()
    if zipped:
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert marker.exists()  # so it would have


@pytest.mark.parametrize(
    "content",
    [
        b"PK",
        b"conv1a.weight 0.1 0.2 0.3\n",
        b"12345678 is not a length\n",
        b"\x80\x02}q\x00(X",
        bytes(range(256)),
    ],
    ids=["two bytes", "text", "digits", "half a pickle", "bytes"],
)
def test_a_file_that_is_neither_safetensors_nor_torch_is_refused(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert "neither safetensors nor a torch file of plain tensors" in refusal(path)


ONNX = b"\x08\x08\x12\x07pytorch\x1a\x052.5.1:" + bytes(200)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 5206086\n", "`git lfs pull` fetches that"),
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
        (b"<html><body>404 Not Found</body></html>", "is a web page"),
        (b'{"error": "not found"}', "is JSON"),
        (ONNX, "looks like an ONNX model"),
        (b"\x1f\x8b\x08" + bytes(100), "is compressed (gzip)"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file"),
    ],
)
def test_what_people_take_for_weights_is_named(tmp_path, content, words):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert words in refusal(path)


@pytest.mark.parametrize("value", [np.float64(0.3), np.int64(7), np.zeros(3)])
@pytest.mark.parametrize("zipped", [True, False])
def test_numpy_numbers_beside_the_tensors_are_named_without_advice_to_unpickle_them(tmp_path, value, zipped):
    path = tmp_path / "run.pth"
    content = {"state_dict": {"conv1a.weight": torch.zeros(1)}, "best_loss": value}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    sentence = refusal(path)
    assert "it holds numpy numbers beside its tensors (numpy." in sentence
    assert "weights_only" not in sentence and "safe_globals" not in sentence and "\x1b" not in sentence


def test_nothing_in_a_file_reaches_the_terminal_as_an_escape(random_checkpoint, tmp_path):
    escape = "\x1b[31mred\x07"
    path = tmp_path / "mine.safetensors"
    checkpoint = random_checkpoint()
    save_checkpoint(path, Checkpoint(checkpoint.architecture, checkpoint.state, {f"a{escape}": f"two\nlines{escape}"}))
    assert load_checkpoint(path).metadata == {"a�[31mred�": "two\nlines�[31mred�"}
    for name, save in (("keys.safetensors", save_file), ("keys.pth", torch.save)):
        content, target = {f"{escape}.weight": torch.zeros(1)}, tmp_path / name
        save(content, target)
        assert "�[31mred�" in refusal(target)


@pytest.fixture(scope="module")
def serialised(random_checkpoint, tmp_path_factory):
    """The same weights as safetensors, as a torch file and as a torch file from before 2020."""
    folder = tmp_path_factory.mktemp("serialised")
    state = random_checkpoint().state
    save_checkpoint(folder / "safetensors", random_checkpoint())
    torch.save(state, folder / "torch")
    torch.save(state, folder / "legacy", _use_new_zipfile_serialization=False)
    return folder


@pytest.mark.parametrize("kind", ["safetensors", "torch", "legacy"])
@given(part=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(serialised, tmp_path_factory, kind, part):
    path = tmp_path_factory.getbasetemp() / f"truncated.{kind}"
    whole = (serialised / kind).read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    sentence = refusal(path)
    assert "broken safetensors" in sentence or "neither safetensors" in sentence or "it is empty" in sentence


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["safetensors", "torch", "legacy"])
@given(data=st.data())
def test_a_damaged_file_is_loaded_or_refused_in_a_sentence(serialised, tmp_path_factory, kind, data):
    damaged = bytearray((serialised / kind).read_bytes())
    for _ in range(3):
        # headers, where the structure is, and anywhere else
        limit = data.draw(st.sampled_from([16, 600, len(damaged)]))
        damaged[data.draw(st.integers(0, limit - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind}"
    path.write_bytes(damaged)
    try:
        load_checkpoint(path)
    except ValueError:
        refusal(path)


def test_a_torch_file_of_something_else_says_what_it_holds(tmp_path):
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    assert "expected a mapping of names to tensors, found list" in refusal(tmp_path / "list.pth")


# Safetensors of ours that are wrong inside


def altered(path, checkpoint, **changes):
    """Save a checkpoint with some tensors replaced, or left out where None."""
    state = {**checkpoint.state, **changes}
    state = {name: tensor for name, tensor in state.items() if tensor is not None}
    save_checkpoint(path, Checkpoint(checkpoint.architecture, state))
    return path


@pytest.mark.parametrize(
    "changes, found",
    [
        ({"conv3b.bias": None}, "tensors missing: conv3b.bias"),
        ({"convXY.bias": torch.zeros(3)}, "unknown tensors: convXY.bias"),
        (
            {"convPb.weight": torch.zeros(64, 16, 1, 1)},
            "convPb.weight has shape (64, 16, 1, 1), expected (65, 16, 1, 1)",
        ),
        ({"conv1b.bias": torch.full((4,), torch.nan)}, "conv1b.bias contains NaN or infinite"),
        ({"conv1b.bias": torch.full((4,), torch.inf)}, "conv1b.bias contains NaN or infinite"),
        (
            {"conv1b.bias": torch.zeros(4, dtype=torch.int64)},
            "conv1b.bias holds torch.int64, expected floating point",
        ),
    ],
    ids=["missing", "unknown", "shape", "NaN", "infinite", "integers"],
)
def test_wrong_tensors_are_named_with_what_was_found(random_checkpoint, tmp_path, changes, found):
    path = altered(tmp_path / "wrong.safetensors", random_checkpoint(), **changes)
    assert found in refusal(path)


def test_building_from_wrong_tensors_is_refused_too(random_checkpoint):
    checkpoint = random_checkpoint()
    state = {**checkpoint.state, "conv4a.bias": torch.zeros(5)}
    with pytest.raises(ValueError, match=r"^tiny: conv4a.bias has shape \(5,\), expected \(8,\)$"):
        Checkpoint(checkpoint.architecture, state, checkpoint.metadata).build()


@pytest.mark.parametrize(
    "architecture",
    [
        "not json",
        "null",
        "[]",
        "{}",
        {"channels": [4, 4, 8], "head_channels": 16, "descriptor_dim": 16},
        {"channels": [4, 4, 8, 8], "head_channels": "16", "descriptor_dim": 16},
        {"channels": [4, 4, 8, 8], "head_channels": -16, "descriptor_dim": 16},
        {"channels": [4, 4, 8, 8], "head_channels": 16, "descriptor_dim": 16.0},
        {"channels": [4, 4, 8, 8], "head_channels": 16, "attention": "yes"},
        {"channels": [4, 4, 8, 8], "head_channels": 16, "stem": 4},
    ],
    ids=str,
)
def test_an_architecture_that_is_not_known_is_quoted(random_checkpoint, tmp_path, architecture):
    text = architecture if isinstance(architecture, str) else json.dumps(architecture)
    path = tmp_path / "future.safetensors"
    save_file(random_checkpoint().state, path, metadata={"architecture": text})
    sentence = refusal(path)
    assert "its architecture is not one that this version of superpoint_ros knows" in sentence
    assert sentence.endswith(text)


@pytest.mark.parametrize("width", [16000, 10**9])
def test_an_architecture_of_another_size_than_the_tensors_takes_no_memory(
    random_checkpoint, tmp_path, monkeypatch, width
):
    path = tmp_path / "wide.safetensors"
    save_checkpoint(path, random_checkpoint())
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    metadata["architecture"] = json.dumps({**json.loads(metadata["architecture"]), "head_channels": width})
    metadata["architecture"] += 9000 * " "
    save_file(load_file(path), path, metadata=metadata)

    def without_memory(*arguments):
        assert torch.get_default_device().type == "meta"
        return SuperPoint(*arguments)

    monkeypatch.setattr(checkpoint_module, "SuperPoint", without_memory)
    with pytest.raises(ValueError, match="has shape|each at most 16384") as error:
        load_checkpoint(path)
    assert len(str(error.value)) < 600


def test_safetensors_are_readable_by_others(random_checkpoint, tmp_path):
    save_checkpoint(tmp_path / "ours.safetensors", random_checkpoint())
    assert_same_state(load_file(tmp_path / "ours.safetensors"), random_checkpoint().state)
