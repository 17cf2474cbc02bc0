from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import slow
from superpoint_ros.network.checkpoint import DEFAULT_WEIGHTS, Checkpoint, load_checkpoint
from superpoint_ros.network.engines.engine import TorchEngine, choose_device, pad_to_cells
from superpoint_ros.network.heatmap import DetectionSettings

CPU = torch.device("cpu")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device on this machine")


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


def arrays(extraction):
    return extraction.xy, extraction.scores, extraction.descriptors


@pytest.fixture(scope="module")
def engine(random_checkpoint):
    return TorchEngine(random_checkpoint(batch_norm=True), CPU)


# Devices


def test_auto_is_the_first_cuda_device_or_else_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(choose_device("auto")) == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(choose_device(name)) for name in ("auto", "cuda")] == ["cuda:0", "cuda:0"]
    assert [str(choose_device(name)) for name in ("cuda:1", "cpu")] == ["cuda:1", "cpu"]


def test_a_gpu_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RuntimeError, match="^device 'cuda:1' was asked for, but torch .* no such"):
        choose_device("cuda:1")


@pytest.mark.parametrize("name", ["gpu", "mps", "meta", "cuda:-1", "cuda:x", "", None, 0])
def test_another_device_is_refused_with_what_was_given(name):
    with pytest.raises(ValueError, match=f"^device must be auto, cpu, cuda or cuda:N, got {name!r}$"):
        choose_device(name)


# What it is made of


def test_a_network_without_descriptors_is_refused(random_checkpoint):
    with pytest.raises(ValueError, match="^tiny: has no descriptor head"):
        TorchEngine(random_checkpoint(descriptor_dim=0), CPU)


@pytest.mark.parametrize(
    "precision, sentence",
    [("float64", "^precision must be one of .* got 'float64'"), ("float16", "needs a CUDA device")],
)
def test_a_precision_that_cannot_be_is_refused(random_checkpoint, precision, sentence):
    with pytest.raises(ValueError, match=sentence):
        TorchEngine(random_checkpoint(), CPU, precision)


def test_making_an_engine_leaves_the_checkpoint_alone(random_checkpoint):
    checkpoint = random_checkpoint(batch_norm=True)
    before = checkpoint.weights_id
    TorchEngine(checkpoint, CPU)
    assert checkpoint.weights_id == before


# What it computes


@pytest.mark.parametrize("batch_norm", [False, True])
@torch.no_grad()
def test_the_engine_equals_the_pipeline_written_out(random_checkpoint, batch_norm):
    checkpoint = random_checkpoint(batch_norm=batch_norm)
    settings = DetectionSettings(40, detection_threshold=0.016, nms_radius=3, border=2)
    picture = noise(40, 56)
    picture[8:30, 8:30] = 90  # its inner part is flat
    image = torch.from_numpy(picture)[None, None] / 255
    logits, dense = checkpoint.build()(image)

    scores = slow.heatmap(logits[0].numpy())
    scores[slow.flat(picture) | (scores <= 0.016)] = 0
    kept = slow.suppress(scores, 3)
    kept[:2] = kept[-2:] = kept[:, :2] = kept[:, -2:] = 0
    order = np.argsort(-kept, axis=None, kind="stable")[: min(40, np.count_nonzero(kept))]
    expected = [(x, y) for y, x in zip(*np.unravel_index(order, kept.shape), strict=True)]

    [got] = TorchEngine(checkpoint, CPU)([picture], [(40, 56)], settings)
    assert len(expected) == 40 or len(expected) > 20
    assert got.xy.tolist() == [list(point) for point in expected]
    np.testing.assert_allclose(got.scores, kept.flat[order], rtol=1e-4)
    descriptors = [slow.bilinear(dense[0].numpy(), x, y) for x, y in expected]
    np.testing.assert_allclose(got.descriptors, descriptors, atol=1e-4)


@pytest.mark.parametrize("border", [0, 4])
@pytest.mark.parametrize("subpixel", [False, True])
def test_a_picture_in_a_batch_of_unequal_sizes_equals_itself_alone(engine, border, subpixel):
    settings = DetectionSettings(border=border, subpixel=subpixel)
    sizes = [(64, 80), (21, 40), (32, 33), (64, 16)]
    pictures = [pad_to_cells(noise(*size, seed)) for seed, size in enumerate(sizes)]
    together = engine(pictures, sizes, settings)
    for picture, size, got in zip(pictures, sizes, together, strict=True):
        [alone] = engine([picture], [size], settings)
        assert len(alone.xy) > 3
        np.testing.assert_allclose(got.xy, alone.xy, atol=1e-3)
        np.testing.assert_allclose(got.scores, alone.scores, rtol=1e-4)
        np.testing.assert_allclose(got.descriptors, alone.descriptors, atol=1e-4)


@pytest.mark.parametrize("value", [0, 255])
def test_a_blank_picture_in_a_batch_has_no_keypoints(engine, value):
    pictures = [noise(64, 80), np.full((32, 40), value, np.uint8)]
    settings = DetectionSettings(border=0)
    full, blank = engine(pictures, [(64, 80), (32, 40)], settings)
    assert len(full.xy) > 0
    assert blank.xy.shape == (0, 2)
    assert blank.scores.shape == (0,)
    assert blank.descriptors.shape == (0, 16)


def test_results_are_the_same_each_time(engine):
    settings = DetectionSettings(subpixel=True)
    first, again = (engine([noise(64, 80)], [(64, 80)], settings)[0] for _ in range(2))
    for one, other in zip(arrays(first), arrays(again), strict=True):
        np.testing.assert_array_equal(one, other)


def test_results_are_float32_arrays_that_own_their_memory(engine):
    [result] = engine([noise(64, 80)], [(64, 80)], DetectionSettings())
    for array in arrays(result):
        assert array.dtype == np.float32
        assert array.flags.c_contiguous


def test_weights_that_overflow_give_no_keypoints_instead_of_nonsense(random_checkpoint):
    checkpoint = random_checkpoint()
    state = {name: tensor * 1e6 for name, tensor in checkpoint.state.items()}
    overflowing = TorchEngine(Checkpoint(checkpoint.architecture, state), CPU)
    [result] = overflowing([noise(64, 80)], [(64, 80)], DetectionSettings())
    assert np.isfinite(result.scores).all()
    assert len(result.xy) == 0


# Padding


@pytest.mark.parametrize("height, width", [(16, 17), (17, 24), (23, 31)])
def test_padding_repeats_the_last_row_and_column(height, width):
    picture = noise(height, width)
    padded = pad_to_cells(picture)
    assert padded.shape == (24 if height > 16 else 16, 24 if width <= 24 else 32)
    for y in range(padded.shape[0]):
        for x in range(padded.shape[1]):
            assert padded[y, x] == picture[min(y, height - 1), min(x, width - 1)]


def test_a_picture_of_whole_cells_is_not_copied():
    picture = noise(24, 32)
    assert pad_to_cells(picture) is picture


# CUDA


@needs_cuda
def test_cuda_finds_the_keypoints_that_the_cpu_finds(photograph):
    checkpoint, settings = load_checkpoint(DEFAULT_WEIGHTS), DetectionSettings()
    with torch.backends.cudnn.flags(allow_tf32=False):
        [there] = TorchEngine(checkpoint, torch.device("cuda:0"))([photograph], [(240, 320)], settings)
    [here] = TorchEngine(checkpoint, CPU)([photograph], [(240, 320)], settings)
    row_of = {tuple(xy): row for row, xy in enumerate(there.xy.tolist())}
    common = [(row, row_of[xy]) for row, xy in enumerate(map(tuple, here.xy.tolist())) if xy in row_of]
    assert len(common) >= 0.99 * max(len(here.xy), len(there.xy))
    rows, rows_there = np.array(common).T
    np.testing.assert_allclose(here.scores[rows], there.scores[rows_there], rtol=1e-2, atol=1e-4)
    np.testing.assert_allclose(here.descriptors[rows], there.descriptors[rows_there], rtol=0, atol=5e-3)


@needs_cuda
def test_half_precision_finds_nearly_the_same_keypoints(photograph):
    checkpoint, settings = load_checkpoint(DEFAULT_WEIGHTS), DetectionSettings()
    single, half = (
        TorchEngine(checkpoint, torch.device("cuda:0"), precision)([photograph], [(240, 320)], settings)[0]
        for precision in ("float32", "float16")
    )
    distance = np.abs(single.xy[:, None] - half.xy[None]).max(axis=2).min(axis=1)
    assert (distance <= 1).mean() > 0.9
    assert np.isfinite(half.descriptors).all()


class TransfersToHost(TorchDispatchMode):
    """Counts the operations that take a CUDA tensor and return one in host memory."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = [value for value in args if isinstance(value, torch.Tensor)]
        if isinstance(result, torch.Tensor) and result.device.type == "cpu":
            if any(value.device.type == "cuda" for value in given):
                self.shapes.append(tuple(result.shape))
        return result


@needs_cuda
def test_all_results_leave_the_gpu_in_one_transfer(photograph, random_checkpoint):
    # The flags by which suppression knows that it is done are Python numbers, and not counted.
    engine = TorchEngine(random_checkpoint(), torch.device("cuda:0"))
    with TransfersToHost() as transfers:
        engine([photograph] * 2, [(240, 320)] * 2, DetectionSettings(max_keypoints=100))
    assert transfers.shapes == [(2, 100, 3 + 16)]
