from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from superpoint_ros.features.extractor import Extractor
from superpoint_ros.network import named_weights
from superpoint_ros.network.checkpoint import DEFAULT_WEIGHTS, load_checkpoint, save_checkpoint
from superpoint_ros.network.named_weights import SHORT_NAMES, find_weights, packaged_weights


@pytest.fixture
def shipped(tmp_path, monkeypatch, random_checkpoint):
    """A folder of weights in the package's place, with both short names."""
    for short, name in SHORT_NAMES.items():
        checkpoint = random_checkpoint(stem=2 if short == "fast" else 1)
        checkpoint.metadata["name"] = name
        save_checkpoint(tmp_path / f"{name}.safetensors", checkpoint)
    monkeypatch.setattr(named_weights, "FOLDER", tmp_path)
    return tmp_path


@pytest.mark.parametrize("nothing", [None, "", "default"])
def test_no_name_is_the_default(nothing):
    assert find_weights(nothing) == DEFAULT_WEIGHTS
    assert load_checkpoint(nothing).metadata["name"] == DEFAULT_WEIGHTS.stem


def test_every_file_has_its_own_name_and_two_have_a_short_one(shipped):
    default, fast = (shipped / f"{name}.safetensors" for name in SHORT_NAMES.values())
    assert packaged_weights() == {"default": default, "fast": fast, default.stem: default, fast.stem: fast}
    for name, path in packaged_weights().items():
        assert find_weights(name) == path


def test_the_package_has_what_its_short_names_promise():
    assert packaged_weights()["default"] == DEFAULT_WEIGHTS
    assert set(packaged_weights()) >= {"default", DEFAULT_WEIGHTS.stem}


def test_an_extractor_takes_names(shipped):
    assert Extractor(weights="fast", device="cpu", engine="torch").weights_id.startswith(SHORT_NAMES["fast"])
    assert Extractor(device="cpu", engine="torch").weights_id.startswith(SHORT_NAMES["default"])


def test_a_name_wins_over_a_file_in_the_folder_unless_it_is_a_path(shipped, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(shipped / f"{SHORT_NAMES['default']}.safetensors", elsewhere / "fast")
    monkeypatch.chdir(elsewhere)
    assert find_weights("fast").parent == shipped
    assert find_weights("./fast").resolve() == elsewhere / "fast"
    assert find_weights(Path("./fast").resolve()) == elsewhere / "fast"


def test_a_path_in_the_home_folder_is_found(tmp_path, monkeypatch, tiny_weights):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(tiny_weights, tmp_path / "mine.safetensors")
    assert find_weights("~/mine.safetensors") == tmp_path / "mine.safetensors"


def test_what_is_neither_file_nor_name_is_refused_with_the_names_there_are(shipped):
    with pytest.raises(FileNotFoundError) as error:
        find_weights("fst")
    assert str(error.value) == (
        f"fst: no such weights file; the package has default, fast, {', '.join(SHORT_NAMES.values())}"
    )
