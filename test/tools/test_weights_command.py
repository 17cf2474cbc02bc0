from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner

from superpoint_ros.network.checkpoint import DEFAULT_WEIGHTS, load_checkpoint
from superpoint_ros.tools.cli import cli


def run(*arguments):
    return CliRunner().invoke(cli, ["weights", *map(str, arguments)])


def test_show_prints_id_architecture_and_licence():
    result = run("show", DEFAULT_WEIGHTS)
    assert result.exit_code == 0
    checkpoint = load_checkpoint(DEFAULT_WEIGHTS)
    assert checkpoint.weights_id in result.output
    assert checkpoint.metadata["licence"] in result.output
    assert "descriptor dim  256" in result.output


def test_convert_keeps_the_weights_and_adds_what_is_said_of_them(tmp_path, random_checkpoint):
    source, target = tmp_path / "magic.pth", tmp_path / "ours" / "mine.safetensors"
    torch.save(random_checkpoint().state, source)
    result = run("convert", source, target, "--name", "mine", "--licence", "MIT")
    assert result.exit_code == 0, result.output
    converted = load_checkpoint(target)
    assert converted.weights_id.startswith("mine@")
    assert converted.weights_id.split("@")[1] == load_checkpoint(source).weights_id.split("@")[1]
    assert converted.metadata["licence"] == "MIT"
    assert converted.layout == "superpoint_ros"
    assert converted.weights_id in result.output


def test_convert_replaces_a_file_only_when_forced(tmp_path, tiny_weights):
    target = tmp_path / "mine.safetensors"
    assert run("convert", tiny_weights, target).exit_code == 0
    before = target.read_bytes()
    result = run("convert", tiny_weights, target, "--name", "other")
    assert result.exit_code == 1 and "exists already" in result.output
    assert target.read_bytes() == before
    assert run("convert", tiny_weights, target, "--name", "other", "--force").exit_code == 0
    assert load_checkpoint(target).metadata["name"] == "other"


def test_convert_writes_safetensors_only(tmp_path, tiny_weights):
    result = run("convert", tiny_weights, tmp_path / "mine.pth")
    assert result.exit_code == 1 and ".safetensors" in result.output


def test_a_file_that_is_no_weights_gets_one_sentence(tmp_path):
    (tmp_path / "words.pth").write_text("not weights")
    for name in ("words.pth", "missing.pth"):
        result = run("show", tmp_path / name)
        assert result.exit_code == 1
        assert name in result.output and "Traceback" not in result.output
        assert len(result.output.strip().splitlines()) == 1


def test_list_prints_every_name_with_what_it_is():
    result = run("list")
    assert result.exit_code == 0
    [line] = [line for line in result.output.splitlines() if line.startswith("default, ")]
    checkpoint = load_checkpoint(DEFAULT_WEIGHTS)
    for fact in (DEFAULT_WEIGHTS.stem, checkpoint.weights_id, checkpoint.metadata["licence"], "5.2 MB"):
        assert fact in line


@pytest.mark.parametrize("name", ["default", DEFAULT_WEIGHTS.stem])
def test_show_knows_the_names(name):
    assert run("show", name).output == run("show", DEFAULT_WEIGHTS).output


def test_a_name_that_is_none_gets_the_names_there_are():
    result = run("show", "superpoint_ros_1")
    assert result.exit_code == 1
    assert "superpoint_ros_1: no such weights file; the package has default, " in result.output
