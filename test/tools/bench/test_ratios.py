"""Guards parity and the bench command; what is fast is told by `make bench`, not by a test."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from superpoint_ros.network.checkpoint import DEFAULT_WEIGHTS, load_checkpoint
from superpoint_ros.network.engines.choice import installed
from superpoint_ros.network.engines.cpu_engine import PACKAGES, CpuEngine
from superpoint_ros.network.heatmap import DetectionSettings
from superpoint_ros.tools.bench.command import bench_command
from superpoint_ros.tools.bench.measure import compare_engines, multiplications
from superpoint_ros.tools.bench.reference import Reference


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_parity(engine, reference):
    """Fail unless the engine has the reference's keypoints and descriptors."""
    _, row = compare_engines(reference, [engine], (240, 320), 1, 1, DetectionSettings())
    assert row.same >= 0.995
    assert row.cosine > 0.999
    assert row.cpu_ratio > 0


@pytest.fixture(scope="module")
def checkpoint():
    return load_checkpoint(DEFAULT_WEIGHTS)


@pytest.fixture(params=PACKAGES)
def engine(request, checkpoint, one_thread, tmp_path, monkeypatch):
    if not installed(request.param):
        pytest.skip(f"not installed: {' and '.join(PACKAGES[request.param])}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return CpuEngine(request.param, checkpoint)


def test_an_engine_keeps_its_parity_with_eager_torch(engine, checkpoint):
    assert_parity(engine, Reference(checkpoint, torch.device("cpu")))


class Shifted:
    """An engine that finds other keypoints."""

    precision = "float32"

    def __init__(self, engine):
        self.engine, self.name = engine, engine.name

    def __call__(self, *arguments):
        return [replace(one, xy=one.xy + np.float32(1)) for one in self.engine(*arguments)]


def test_an_engine_that_finds_other_keypoints_is_caught(engine, checkpoint):
    with pytest.raises(AssertionError, match="same"):
        assert_parity(Shifted(engine), Reference(checkpoint, torch.device("cpu")))


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


@pytest.mark.parametrize("sizes", ["", "640", "641x480", "axb"])
def test_a_size_that_cannot_be_is_named(sizes):
    result = CliRunner().invoke(bench_command, ["--sizes", sizes])
    assert result.exit_code == 2
    assert f"'{sizes}': expected WIDTHxHEIGHT" in result.output
