"""Everything but the capture runs here on the CPU, against the torch engine; the rest needs CUDA."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from superpoint_ros.features.matching import nearest_on_device
from superpoint_ros.network.checkpoint import load_checkpoint
from superpoint_ros.network.engines import choice, cuda_engine
from superpoint_ros.network.engines.choice import installed, make_engine
from superpoint_ros.network.engines.cuda_engine import CudaEngine, TorchNetwork, extract, finished
from superpoint_ros.network.engines.engine import TorchEngine, pad_to_cells
from superpoint_ros.network.engines.onnx_file import onnx_bytes
from superpoint_ros.network.engines.onnx_networks import OnnxRuntimeOnDevice, tensorrt_providers
from superpoint_ros.network.engines.parity import built_in_picture, check, compare
from superpoint_ros.network.heatmap import DetectionSettings
from superpoint_ros.network.superpoint import Architecture, SuperPoint

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
LOGGER = "superpoint_ros.network"
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device on this machine")


class Graphs:
    """In the place of `GraphCapture`: work runs again at each replay and fills the same tensors anew."""

    def __init__(self):
        self.captures = self.replays = 0

    def __call__(self, work):
        self.captures += 1
        result = work()

        def replay():
            self.replays += 1
            for mine, new in zip(vars(result).values(), vars(work()).values(), strict=True):
                mine.copy_(new)
            return result

        return replay


@pytest.fixture(scope="module", params=["default", "fast"])  # the fast ones have a stem
def checkpoint(request):
    return load_checkpoint(request.param)


@pytest.fixture(scope="module")
def reference(checkpoint):
    return TorchEngine(checkpoint, CPU)


@pytest.fixture
def graphs():
    return Graphs()


@pytest.fixture
def engine(checkpoint, graphs):
    return CudaEngine(checkpoint, CPU, "float32", capture=graphs)


def assert_same(found, expected, radius=0.0):
    for one, other in zip(found, expected, strict=True):
        assert len(one.xy) > 10
        assert compare(other, one, radius).holds(same=0.999, cosine=0.9999)
        assert (np.diff(one.scores) <= 0).all()
        assert one.descriptors.dtype == one.xy.dtype == one.scores.dtype == np.float32


# What it computes


@pytest.mark.parametrize(
    "changes", [{}, {"subpixel": True}, {"nms_radius": 0, "border": 0}, {"max_keypoints": 20}], ids=str
)
def test_keypoints_are_those_of_the_torch_engine(engine, reference, changes):
    settings = DetectionSettings(**changes)
    pictures = [built_in_picture((120, 160), seed) for seed in range(3)]
    sizes = [(120, 160), (113, 155), (120, 153)]
    found = engine(pictures, sizes, settings)
    assert_same(found, reference(pictures, sizes, settings), 0.01 if settings.subpixel else 0.0)


def test_pictures_of_unequal_shapes_come_back_in_their_order(engine, reference, graphs):
    sizes = [(64, 80), (120, 160), (61, 75), (96, 104)]
    pictures = [pad_to_cells(built_in_picture(size, seed)) for seed, size in enumerate(sizes)]
    found = engine(pictures, sizes, DetectionSettings())
    alone = [
        reference([picture], [size], DetectionSettings())[0] for picture, size in zip(pictures, sizes, strict=True)
    ]
    assert_same(found, alone)
    assert graphs.captures == 3  # two are of one shape


def test_a_blank_picture_has_no_keypoints(engine):
    [found] = engine([np.zeros((64, 64), np.uint8)], [(64, 64)], DetectionSettings())
    assert found.xy.shape == (0, 2)
    assert found.descriptors.shape == (0, 256)
    assert found.resident.tensor.shape == (0, 256)


def test_half_precision_on_the_cpu_finds_what_single_precision_finds(checkpoint, reference, graphs):
    half = CudaEngine(checkpoint, CPU, "float16", capture=graphs)
    assert check(half, reference, 1.0).holds(*choice.LIMITS["float16"][:2])


def test_half_precision_descriptors_are_normalised_in_single_precision(checkpoint):
    logits, dense = TorchNetwork(checkpoint, CPU, torch.float16)(torch.rand(1, 1, 64, 80).half())
    assert (logits.dtype, dense.dtype) == (torch.float16, torch.float32)
    assert dense.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(dense.norm(dim=1), torch.ones(1, 8, 10), atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [{"batch_norm": True}, {"stem": 2}], ids=str)
def test_no_step_waits_for_a_result_or_leaves_the_device(options):
    # On the meta device there are no results to wait for, and tensors of the CPU do not mix with its own.
    model = SuperPoint(Architecture(**options)).eval().half().to("meta")

    class Network:
        dtype = torch.float16

        def __call__(self, image):
            return model(image)

    grey = torch.empty((2, 64, 80), dtype=torch.uint8, device="meta")
    sizes = torch.empty((2, 2), dtype=torch.int64, device="meta")
    with torch.inference_mode():
        result = extract(Network(), grey, sizes, DetectionSettings(subpixel=True))
        assert result.packed.shape == (2, 1025, 3 + 256)
        assert nearest_on_device(result.packed[0, :, 3:], result.packed[1, :, 3:]).shape == (4, 1025)
        with pytest.raises(RuntimeError, match="meta"):
            finished(result, sizes, DetectionSettings())  # which does wait


# Suppression in a fixed number of rounds


def test_a_picture_that_needs_more_rounds_gets_them(engine, reference, monkeypatch):
    pictures, sizes = [built_in_picture((120, 160), seed) for seed in (0, 1)], [(120, 160)] * 2
    expected = reference(pictures, sizes, DetectionSettings())
    goes_on = []
    monkeypatch.setattr(cuda_engine, "finished", lambda *given: goes_on.append(1) or finished(*given))
    assert_same(engine(pictures, sizes, DetectionSettings()), expected)
    assert not goes_on

    in_rounds = cuda_engine.strongest_in_rounds
    monkeypatch.setattr(cuda_engine, "strongest_in_rounds", lambda *given: in_rounds(*given[:-1], 1))
    settings = DetectionSettings(max_keypoints=1000)
    assert_same(engine(pictures, sizes, settings), reference(pictures, sizes, settings))
    assert goes_on


# Graphs


def test_a_shape_is_captured_once_and_replayed(engine, graphs):
    for seed in range(4):
        engine([built_in_picture((64, 80), seed)], [(64, 80)], DetectionSettings())
    assert (graphs.captures, graphs.replays) == (1, 4)
    engine([built_in_picture((64, 80))] * 2, [(64, 80)] * 2, DetectionSettings())
    engine([built_in_picture((64, 80))], [(64, 80)], DetectionSettings(max_keypoints=7))
    assert graphs.captures == 3


def test_only_the_shapes_used_last_are_kept(engine, graphs, monkeypatch):
    monkeypatch.setattr(cuda_engine, "PLANS", 3)

    def captures(count):
        engine([built_in_picture((16, 16))] * count, [(16, 16)] * count, DetectionSettings())
        return graphs.captures

    assert [captures(count) for count in (1, 2, 3, 1)] == [1, 2, 3, 3]
    assert captures(4) == 4  # the second goes
    assert [captures(count) for count in (1, 3, 2)] == [4, 4, 5]


def test_results_stay_what_they_were_when_the_buffers_are_used_again(engine):
    [first] = engine([built_in_picture((64, 80))], [(64, 80)], DetectionSettings())
    before = first.xy.copy(), first.scores.copy(), first.descriptors.copy()
    engine([built_in_picture((64, 80), 1)], [(64, 80)], DetectionSettings())
    for array, copy in zip((first.xy, first.scores, first.descriptors), before, strict=True):
        np.testing.assert_array_equal(array, copy)
    assert first.resident.host is first.descriptors
    np.testing.assert_array_equal(first.resident.tensor.numpy(), before[2])


def test_a_capture_that_fails_costs_one_warning_and_is_not_tried_again(checkpoint, reference, caplog):
    tried = []

    def failing(work):
        tried.append(work)
        raise RuntimeError("operation not permitted when stream is capturing")

    engine = CudaEngine(checkpoint, CPU, "float32", capture=failing)
    with caplog.at_level(logging.WARNING, LOGGER):
        for size in ((64, 80), (72, 80), (64, 80)):
            arguments = [built_in_picture(size)], [size], DetectionSettings()
            assert_same(engine(*arguments), reference(*arguments))
    assert len(tried) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "A CUDA graph cannot be captured (RuntimeError: operation not permitted when stream is capturing); "
        "its steps run one by one."
    ]


# TensorRT's way through ONNX Runtime, with another provider


@pytest.mark.skipif(not installed("onnxruntime"), reason="not installed: onnxruntime and onnx")
def test_onnx_runtime_reads_and_writes_tensors_in_place(checkpoint, reference, graphs):
    network = OnnxRuntimeOnDevice(onnx_bytes(checkpoint.build()), CPU, ["CPUExecutionProvider"])
    engine = CudaEngine(checkpoint, CPU, "float32", "tensorrt", network=network)
    pictures, sizes = [built_in_picture((64, 80), seed) for seed in (0, 1)], [(64, 80)] * 2
    assert_same(engine(pictures, sizes, DetectionSettings()), reference(pictures, sizes, DetectionSettings()))
    assert_same(
        engine(pictures[:1], sizes[:1], DetectionSettings()), reference(pictures[:1], sizes[:1], DetectionSettings())
    )


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.skipif(not installed("onnxruntime"), reason="not installed: onnxruntime and onnx")
def test_a_provider_that_onnx_runtime_has_not_is_named(random_checkpoint, tmp_path):
    content, providers = onnx_bytes(random_checkpoint().build()), tensorrt_providers(CUDA, True, tmp_path)
    if torch.cuda.is_available():
        pytest.skip("this machine may have it")
    with pytest.raises(RuntimeError, match="does not load TensorrtExecutionProvider, only"):
        OnnxRuntimeOnDevice(content, CUDA, providers)


# The choice


class Named:
    """What `make_engine` makes for a GPU, run here; those in `wrong` find all keypoints elsewhere."""

    device = CPU

    def __init__(self, engine, name, precision, wrong):
        self.engine, self.name, self.precision, self.wrong = engine, name, precision, wrong

    def __call__(self, *arguments):
        shift = np.float32(3 if f"{self.name} {self.precision}" in self.wrong else 0)
        return [replace(one, xy=one.xy + shift) for one in self.engine(*arguments)]


@pytest.fixture
def wrong(monkeypatch, reference):
    """Puts `Named` in the place of the engines for CUDA; returns the names of those that are wrong."""
    names = set()

    def fake(name):
        return lambda checkpoint, device, precision="float16": Named(reference, name, precision, names)

    monkeypatch.setattr(choice, "TorchEngine", fake("torch"))
    monkeypatch.setattr(choice, "CudaEngine", fake("cudagraph"))
    return names


@pytest.mark.parametrize(
    "fail, expected",
    [
        ([], "cudagraph float16"),
        (["cudagraph float16"], "cudagraph float32"),
        (["cudagraph float16", "cudagraph float32"], "torch float32"),
    ],
    ids=["all agree", "half does not", "none does"],
)
def test_auto_on_cuda_is_the_fastest_graph_that_agrees(wrong, checkpoint, fail, expected, caplog):
    wrong.update(fail)
    with caplog.at_level(logging.WARNING, LOGGER):
        engine = make_engine(checkpoint, CUDA)
    assert f"{engine.name} {engine.precision}" == expected
    assert len(caplog.records) == len(fail)


def test_a_precision_or_engine_that_is_asked_for_on_cuda_is_taken(wrong, checkpoint):
    for engine, precision, expected in (
        ("cudagraph", "float32", "cudagraph float32"),
        ("torch", "auto", "torch float16"),
        ("torch", "float32", "torch float32"),
    ):
        made = make_engine(checkpoint, CUDA, engine, precision)
        assert f"{made.name} {made.precision}" == expected


def test_a_gpu_that_fails_in_the_check_is_left_with_a_warning(wrong, checkpoint, monkeypatch, caplog):
    class Broken(Named):
        def __call__(self, *arguments):
            raise RuntimeError("CUDA error: no kernel image is available")

    monkeypatch.setattr(choice, "CudaEngine", lambda *_, **__: Broken(None, "cudagraph", "float16", wrong))
    with caplog.at_level(logging.WARNING, LOGGER):
        assert make_engine(checkpoint, CUDA).name == "torch"
    assert "CUDA error: no kernel image is available" in caplog.records[0].getMessage()


@pytest.mark.parametrize("name", choice.CUDA_ENGINES)
def test_a_cuda_engine_on_the_cpu_is_refused(name, checkpoint):
    with pytest.raises(ValueError, match=f"^engine '{name}' needs a CUDA device"):
        make_engine(checkpoint, CPU, name)


def test_tensorrt_that_is_not_installed_is_refused_with_what_it_needs(wrong, checkpoint):
    if torch.cuda.is_available():
        pytest.skip("this machine may have it")
    with pytest.raises(RuntimeError, match="^engine 'tensorrt' needs the packages onnx and onnxruntime-gpu"):
        make_engine(checkpoint, CUDA, "tensorrt")


# CUDA


@needs_cuda
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_cuda_graph_finds_what_torch_finds_step_by_step(checkpoint, precision, caplog):
    graph, eager = CudaEngine(checkpoint, CUDA, precision), TorchEngine(checkpoint, CUDA, "float32")
    with caplog.at_level(logging.WARNING, LOGGER):
        for seed in range(3):
            picture = built_in_picture((240, 320), seed)
            [found], [expected] = (engine([picture], [(240, 320)], DetectionSettings()) for engine in (graph, eager))
            assert compare(expected, found, 1.0).holds(0.99, 0.99)
    assert not caplog.records  # it was captured


@needs_cuda
def test_graphs_that_share_memory_do_not_disturb_each_other(checkpoint):
    engine = CudaEngine(checkpoint, CUDA, "float32")
    sizes = [(240, 320), (120, 160), (480, 640)]
    first = [engine([built_in_picture(size)], [size], DetectionSettings())[0] for size in sizes]
    again = [engine([built_in_picture(size)], [size], DetectionSettings())[0] for size in sizes]
    for one, other in zip(first, again, strict=True):
        assert compare(one, other, 0.0).holds(0.999, 0.9999)
        np.testing.assert_allclose(one.resident.tensor.cpu().numpy(), one.descriptors)


@needs_cuda
def test_frames_of_a_known_shape_take_no_more_memory_on_the_device(checkpoint):
    engine = CudaEngine(checkpoint, CUDA)
    arguments = [built_in_picture((240, 320))], [(240, 320)], DetectionSettings()
    engine(*arguments)
    before = torch.cuda.memory_allocated()
    for _ in range(20):
        engine(*arguments)
    assert torch.cuda.memory_allocated() == before
