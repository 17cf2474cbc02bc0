"""Weights and parameter files of any content end in what they hold or in one sentence."""

from __future__ import annotations

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from damage import FUZZ, damaged
from superpoint_ros.frontend.parameter_file import read_parameters
from superpoint_ros.frontend.parameters import TABLE, Parameters
from superpoint_ros.network.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def weights(random_checkpoint, tmp_path_factory):
    """kind -> bytes of the same small network."""
    folder = tmp_path_factory.mktemp("weights")
    save_checkpoint(folder / "safetensors", random_checkpoint())
    torch.save(random_checkpoint().state, folder / "torch")
    torch.save(random_checkpoint().state, folder / "legacy", _use_new_zipfile_serialization=False)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["safetensors", "torch", "legacy"])
@FUZZ
@given(data=st.data())
def test_damaged_weights(weights, tmp_path_factory, kind, data):
    path = tmp_path_factory.getbasetemp() / f"weights.{kind}"
    path.write_bytes(data.draw(damaged(weights[kind])))
    try:
        load_checkpoint(path)
    except ValueError as error:
        assert str(error).isprintable() and str(path) in str(error)
        assert "weights_only" not in str(error)


@pytest.mark.filterwarnings("ignore")
@FUZZ
@given(st.binary(max_size=300))
def test_weights_of_any_bytes(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "weights.any"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        load_checkpoint(path)
    assert str(error.value).isprintable() and str(path) in str(error.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.one_of(st.sampled_from(sorted(TABLE)), st.text(max_size=12))


def check(path):
    try:
        assert isinstance(read_parameters(path, {}), Parameters)
    except ValueError as error:
        assert str(error).isprintable()


@FUZZ
@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_parameter_files_with_any_values(tmp_path_factory, values):
    path = tmp_path_factory.getbasetemp() / "values.yaml"
    path.write_text(yaml.safe_dump({"/**": {"ros__parameters": values}}, allow_unicode=True), encoding="utf-8")
    check(path)


@FUZZ
@given(VALUES)
def test_parameter_files_of_any_structure(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "structure.yaml"
    for whole in (content, {"/**": content}, {"/**": {"ros__parameters": content}}):
        path.write_text(yaml.safe_dump(whole, allow_unicode=True), encoding="utf-8")
        check(path)


@FUZZ
@given(st.binary(max_size=120))
def test_parameter_files_of_any_bytes(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(content)
    check(path)


@FUZZ
@given(st.dictionaries(NAMES, st.text(max_size=20), max_size=3))
def test_assignments_of_any_text(assignments):
    try:
        read_parameters(None, assignments)
    except ValueError as error:
        assert str(error).isprintable()
