"""What the bench compares agrees, and what it prints and writes is whole; how fast it is, is for `make bench`."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from superpoint_ros.network.checkpoint import DEFAULT_WEIGHTS, load_checkpoint, save_checkpoint
from superpoint_ros.network.engines.choice import installed
from superpoint_ros.network.engines.cpu_engine import PACKAGES, CpuEngine
from superpoint_ros.network.heatmap import DetectionSettings
from superpoint_ros.tools.bench import choices
from superpoint_ros.tools.bench.command import bench_command
from superpoint_ros.tools.bench.measure import compare_engines, multiplications
from superpoint_ros.tools.bench.reference import Reference


def assert_parity(engine, reference):
    """Fail unless the engine has the reference's keypoints and descriptors."""
    _, row = compare_engines(reference, [engine], (240, 320), 1, 1, DetectionSettings())
    assert row.same >= 0.995
    assert row.cosine > 0.999


@pytest.fixture(scope="module")
def checkpoint():
    return load_checkpoint(DEFAULT_WEIGHTS)


@pytest.fixture(params=PACKAGES)
def engine(request, checkpoint, tmp_path, monkeypatch):
    if not installed(request.param):
        pytest.skip(f"not installed: {' and '.join(PACKAGES[request.param])}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return CpuEngine(request.param, checkpoint)


def test_an_engine_finds_what_the_plain_pipeline_finds(engine, checkpoint):
    assert_parity(engine, Reference(checkpoint, torch.device("cpu")))


class Shifted:
    """An engine that has become worse."""

    precision = "float32"

    def __init__(self, engine):
        self.engine, self.name = engine, engine.name

    def __call__(self, *arguments):
        return [replace(one, xy=one.xy + np.float32(1)) for one in self.engine(*arguments)]


def test_an_engine_that_finds_other_keypoints_is_caught(engine, checkpoint):
    with pytest.raises(AssertionError, match="same"):
        assert_parity(Shifted(engine), Reference(checkpoint, torch.device("cpu")))


def test_an_engine_runs_its_network_once_for_each_picture(engine, monkeypatch):
    network, seen = engine.network, []
    monkeypatch.setattr(engine, "network", lambda picture: seen.append(picture.shape) or network(picture))
    sizes = [(48, 64), (64, 64), (48, 64)]
    engine([np.zeros(size, np.uint8) for size in sizes], sizes, DetectionSettings())
    assert seen == sizes


def test_the_network_has_the_multiplications_that_the_paper_gives():
    # 3×3 convolutions of 1-64-64, 64-64, 128-128, 128-128 and 256, 1×1 ones of 65 and 256
    cells = 1 / 64
    expected = 9 * (64 + 64 * 64) + 9 * (2 * 64 * 64) / 4 + 9 * (64 * 128 + 128 * 128) / 16
    expected += 9 * cells * (2 * 128 * 128 + 2 * 128 * 256) + cells * 256 * (65 + 256)
    assert multiplications(load_checkpoint(DEFAULT_WEIGHTS), (240, 320)) == 240 * 320 * expected


def test_the_command_prints_a_table_and_writes_json(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = tmp_path / "bench.json"
    arguments = ["--sizes", "160x120", "--batches", "1,2", "--rounds", "1", "--json", str(path)]
    arguments += ["--scales", "video", "--scales", "1,0.75"]
    result = CliRunner().invoke(bench_command, [*arguments, "--engine", "torch", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    assert [row["engine"] for row in report["whole"]] == [
        "reference float32", "torch float32", "floor"
    ] * 2  # fmt: skip
    assert set(report["stages"][1]) >= {"network", "NMS + top-k", "sampling"}
    assert report["matching"]["matches"] > 100
    assert "160x120" in result.output
    assert "GPU: not measured" in result.output
    assert report["matching"]["product"] > 0
    assert [row["scales"] for row in report["scales"]] == [[1.0, 0.5], [1.0, 0.75]]
    assert [row["pixels"] for row in report["scales"]] == pytest.approx([1 + 8 * 10 / 300, 1 + 12 * 15 / 300])


def test_a_network_with_a_stem_has_a_quarter_of_the_first_stages_pixels(random_checkpoint):
    channels, head, dim = (4, 4, 8, 8), 16, 16
    cells = 1 / 64
    expected = 9 * (4 * 4 + 4 * 4) / 4 + 9 * (2 * 4 * 4) / 4 + 9 * (4 * 8 + 8 * 8) / 16
    expected += 9 * cells * (2 * 8 * 8 + 2 * 8 * 16) + cells * 16 * (65 + 16)
    checkpoint = random_checkpoint(stem=2)
    assert (checkpoint.architecture.channels, checkpoint.architecture.head_channels) == (channels, head)
    assert checkpoint.architecture.descriptor_dim == dim
    assert multiplications(checkpoint, (64, 96)) == 64 * 96 * expected


def test_weights_are_compared_by_engine_beside_sift_and_orb(tmp_path, random_checkpoint):
    other = tmp_path / "other.safetensors"
    save_checkpoint(other, random_checkpoint(stem=2))
    arguments = ["--sizes", "160x120", "--batches", "1", "--rounds", "2", "--device", "cpu", "--engine", "torch"]
    arguments += ["--json", str(tmp_path / "bench.json"), "--scales", "single"]
    result = CliRunner().invoke(bench_command, [*arguments, "--weights", "default", "--weights", str(other)])
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "bench.json").read_text())["choices"]
    assert [row["name"] for row in rows] == ["default torch", f"{other} torch", "SIFT 1000", "ORB 1000"]
    assert all(row["wall"] > 0 and row["cpu"] > 0 for row in rows)
    assert rows[0]["ratio"] == rows[0]["cpu_ratio"] == 1
    assert all(row["keypoints"] > 20 for row in rows if row["name"] != f"{other} torch")
    assert "SIFT 1000" in result.output and "images/s" in result.output


def test_every_choice_is_given_the_same_picture_in_turns():
    seen = []
    everything = {name: lambda picture, name=name: seen.append((name, picture.shape)) or 7 for name in "ab"}
    rows = choices.compare(everything, np.zeros((16, 24), np.uint8), rounds=2)
    assert seen == [("a", (16, 24)), ("b", (16, 24))] * 3
    assert [(row.name, row.keypoints) for row in rows] == [("a", 7), ("b", 7)]


@pytest.mark.parametrize("size", [(240, 320), (480, 640), (720, 1280), (640, 480)])
def test_the_picture_has_the_size_that_is_asked_for(size):
    picture, shown = choices.picture(size)
    assert picture.shape == size and picture.dtype == np.uint8
    assert shown


@pytest.mark.parametrize("sizes", ["", "640", "641x480", "axb"])
def test_a_size_that_cannot_be_is_named(sizes):
    result = CliRunner().invoke(bench_command, ["--sizes", sizes])
    assert result.exit_code == 2
    assert f"'{sizes}': expected WIDTHxHEIGHT" in result.output
