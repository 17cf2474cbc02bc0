"""Every engine that is installed against torch, the choice among them, and the cache."""

from __future__ import annotations

import logging
import os

import numpy as np
import pytest
import torch

from superpoint_ros.network.checkpoint import DEFAULT_WEIGHTS, load_checkpoint
from superpoint_ros.network.engines import cache, choice
from superpoint_ros.network.engines.choice import agreeing, installed, make_engine
from superpoint_ros.network.engines.cpu_engine import PACKAGES, CpuEngine, load_network
from superpoint_ros.network.engines.parity import built_in_picture, check, compare
from superpoint_ros.network.heatmap import DetectionSettings, heatmap_from_logits

CPU = torch.device("cpu")
LOGGER = "superpoint_ros.network"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "superpoint_ros"


@pytest.fixture(params=PACKAGES)
def name(request):
    if request.param in PACKAGES and not installed(request.param):
        pytest.skip(f"not installed: {' and '.join(PACKAGES[request.param])}")
    return request.param


def outputs(checkpoint, picture):
    """Heatmap and cells' descriptors of unit length, by torch."""
    with torch.inference_mode():
        logits, dense = checkpoint.build()(torch.from_numpy(picture)[None, None].float() / 255)
    return heatmap_from_logits(logits)[0].numpy(), dense[0].permute(1, 2, 0).numpy()


def unit(cells):
    return cells / np.linalg.norm(cells, axis=2, keepdims=True)


# Each engine


KINDS = [{}, {"batch_norm": True}, {"stem": 2}, {"batch_norm": True, "norm_first": True, "stem": 2}]


@pytest.mark.parametrize("size", [(16, 16), (24, 200), (120, 88), (136, 168)])
@pytest.mark.parametrize("options", KINDS, ids=str)
def test_a_network_computes_what_torch_computes(name, random_checkpoint, size, options):
    checkpoint = random_checkpoint(**options)
    picture = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    for threads in (1, 2):
        heatmap, cells = load_network(name, checkpoint, threads)(picture)
        expected_heatmap, expected_cells = outputs(checkpoint, picture)
        np.testing.assert_allclose(heatmap, expected_heatmap, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(unit(cells), expected_cells, atol=1e-4)


@pytest.mark.parametrize("name", [*PACKAGES, "torch"], indirect=True)
def test_a_picture_in_memory_that_is_read_only_is_nothing_to_warn_of(name, random_checkpoint, recwarn):
    network, picture = load_network(name, random_checkpoint(), 1), built_in_picture((48, 64))
    picture.flags.writeable = False
    torch.set_warn_always(True)  # else once in a process
    try:
        with torch.inference_mode():
            network(picture)
    finally:
        torch.set_warn_always(False)
    assert [str(warning.message) for warning in recwarn] == []


def test_a_norm_that_falls_does_not_trade_places_with_the_max_pool(name, random_checkpoint):
    checkpoint = random_checkpoint(batch_norm=True)
    for layer in ("1b", "3b"):
        checkpoint.state[f"bn{layer}.weight"][::2] *= -1
    picture = built_in_picture((48, 64))
    heatmap, _ = load_network(name, checkpoint, 1)(picture)
    np.testing.assert_allclose(heatmap, outputs(checkpoint, picture)[0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("changes", [{}, {"subpixel": True}, {"nms_radius": 0, "border": 0}])
@pytest.mark.parametrize("weights", ["default", "fast"])
def test_keypoints_are_those_of_torch(name, weights, changes):
    checkpoint = load_checkpoint(weights)
    settings = DetectionSettings(**changes)
    pictures = [built_in_picture((120, 160)), built_in_picture((96, 104), seed=1)]
    sizes = [(120, 160), (90, 99)]
    found = CpuEngine(name, checkpoint)(pictures, sizes, settings)
    for one, expected in zip(found, CpuEngine("torch", checkpoint)(pictures, sizes, settings), strict=True):
        parity = compare(expected, one, 0 if not settings.subpixel else 0.01)
        assert parity.holds(same=0.995, cosine=0.999)
        assert (np.diff(one.scores) <= 0).all()


def test_a_blank_picture_has_no_keypoints(name):
    engine = CpuEngine(name, load_checkpoint(DEFAULT_WEIGHTS))
    [found] = engine([np.zeros((64, 64), np.uint8)], [(64, 64)], DetectionSettings())
    assert found.xy.shape == (0, 2)
    assert found.descriptors.shape == (0, 256)


def test_picture_sizes_may_change_from_call_to_call(name):
    engine = CpuEngine(name, load_checkpoint(DEFAULT_WEIGHTS))
    sizes = [(48 + 8 * step, 64) for step in range(6)]
    pictures = [built_in_picture(size) for size in sizes]
    alone = [engine([p], [s], DetectionSettings())[0] for p, s in zip(pictures, sizes, strict=True)]
    again = engine(pictures, sizes, DetectionSettings())
    for a, b in zip(alone, again, strict=True):
        np.testing.assert_array_equal(a.xy, b.xy)
        np.testing.assert_array_equal(a.descriptors, b.descriptors)


# The choice


def only(monkeypatch, *names):
    monkeypatch.setattr(choice, "installed", lambda name: name in names)


def test_auto_without_any_engine_is_torch(monkeypatch, random_checkpoint):
    only(monkeypatch)
    assert make_engine(random_checkpoint(), CPU).name == "torch"


def test_auto_is_the_first_of_the_table_that_is_installed(name, monkeypatch):
    later = list(PACKAGES)[list(PACKAGES).index(name) :]
    only(monkeypatch, *later)
    assert make_engine(load_checkpoint(DEFAULT_WEIGHTS), CPU).name == name


@pytest.mark.parametrize("engine", PACKAGES)
def test_an_engine_that_is_not_installed_is_refused_with_its_package(engine, monkeypatch, random_checkpoint):
    monkeypatch.setattr(choice, "find_spec", lambda package: None)
    with pytest.raises(RuntimeError, match=f"^engine '{engine}' needs .*: pip install {engine}"):
        make_engine(random_checkpoint(), CPU, engine)


def test_a_cpu_engine_on_a_gpu_is_refused(random_checkpoint):
    with pytest.raises(ValueError, match="^engine 'ncnn' runs on the CPU only"):
        make_engine(random_checkpoint(), torch.device("cuda:0"), "ncnn")


class Failing:
    """Torch in half precision as far as names go; finds keypoints shifted, or wrong descriptors."""

    name, precision, device = "torch", "float16", CPU

    def __init__(self, engine, shift=0.0, descriptors=1.0):
        self.engine, self.shift, self.descriptors = engine, shift, descriptors

    def __call__(self, *arguments):
        return [
            type(one)(one.xy + np.float32(self.shift), one.scores, one.descriptors * self.descriptors)
            for one in self.engine(*arguments)
        ]


@pytest.fixture(scope="module")
def reference():
    return CpuEngine("torch", load_checkpoint(DEFAULT_WEIGHTS))


def test_half_precision_that_agrees_is_used(reference):
    half = Failing(reference, shift=0.9, descriptors=0.995)
    assert agreeing([lambda: half], reference) is half


@pytest.mark.parametrize("fault", [{"shift": 2.5}, {"descriptors": 0.9}, {"descriptors": float("nan")}], ids=str)
def test_half_precision_that_disagrees_falls_back_and_says_so(reference, fault, caplog):
    with caplog.at_level(logging.WARNING, LOGGER):
        assert agreeing([lambda: Failing(reference, **fault)], reference) is reference
    [record] = caplog.records
    assert record.getMessage().startswith("Engine torch float16 finds ")


def test_an_engine_that_does_not_load_is_passed_over_and_says_so(reference, caplog):
    def broken():
        raise OSError("illegal instruction")

    other = Failing(reference)
    with caplog.at_level(logging.WARNING, LOGGER):
        assert agreeing([broken, lambda: other], reference) is other
    assert [record.getMessage() for record in caplog.records] == [
        "An engine does not load (OSError: illegal instruction)."
    ]


def test_an_engine_agrees_with_itself(reference):
    parity = check(reference, reference, 0)
    assert parity.same == 1
    assert parity.cosine == pytest.approx(1)


# The cache


def counted(content=b"network"):
    calls = []

    def build():
        calls.append(1)
        return content

    return build, calls


def test_a_file_is_built_once(own_cache, caplog):
    build, calls = counted()
    with caplog.at_level(logging.WARNING, LOGGER):
        assert [cache.cached("a.onnx", build) for _ in range(3)] == [b"network"] * 3
    assert len(calls) == 1
    assert os.listdir(own_cache) == ["a.onnx"]
    assert not caplog.records


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: b"\x08\x07an ONNX file of someone else's\n",
        lambda data: data.replace(b"a.onnx", b"b.onnx"),
    ],
    ids=["truncated", "empty", "a bit flipped", "foreign", "another's name"],
)
def test_a_damaged_or_foreign_file_is_rebuilt_with_one_warning(own_cache, damage, caplog):
    build, calls = counted()
    cache.cached("a.onnx", build)
    path = own_cache / "a.onnx"
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING, LOGGER):
        assert cache.cached("a.onnx", build) == b"network"
        assert cache.cached("a.onnx", build) == b"network"
    assert len(calls) == 2
    [record] = caplog.records
    assert record.getMessage().startswith(f"{path}: not what superpoint_ros wrote")


def test_a_cache_that_cannot_be_written_costs_a_warning_only(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    build, _ = counted()
    with caplog.at_level(logging.WARNING, LOGGER):
        assert cache.cached("a.onnx", build) == b"network"
    assert "cannot be kept" in caplog.records[-1].getMessage()


def test_the_key_changes_with_any_weight_and_with_the_architecture(random_checkpoint):
    keys = {cache.checkpoint_key(random_checkpoint(batch_norm=norm)) for norm in (False, True)}
    changed = random_checkpoint()
    changed.state["convDb.bias"][3] += 1e-3
    assert len(keys | {cache.checkpoint_key(changed)}) == 3
    assert cache.checkpoint_key(random_checkpoint()) in keys


@pytest.mark.skipif(not installed("onnxruntime"), reason="not installed: onnxruntime and onnx")
def test_an_engine_with_a_corrupt_cache_file_still_works(own_cache, reference):
    checkpoint = load_checkpoint(DEFAULT_WEIGHTS)
    CpuEngine("onnxruntime", checkpoint)
    [file] = own_cache.iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    assert check(CpuEngine("onnxruntime", checkpoint), reference, 0).holds(0.995, 0.999)
