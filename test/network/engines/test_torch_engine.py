"""The engine in torch on the CPU, against slow versions and the numpy engines; what only a GPU can show needs one."""

from __future__ import annotations

import gc
import logging
import weakref

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import slow
from superpoint_ros.network.checkpoint import DEFAULT_WEIGHTS, Checkpoint, load_checkpoint
from superpoint_ros.network.engines import dense_plan, torch_engine
from superpoint_ros.network.engines.choice import LIMITS, has_triton, installed
from superpoint_ros.network.engines.cpu_engine import CpuEngine
from superpoint_ros.network.engines.dense_plan import FEWEST, Steps
from superpoint_ros.network.engines.engine import pad_to_cells
from superpoint_ros.network.engines.graphs import GraphCapture
from superpoint_ros.network.engines.onnx_file import onnx_bytes
from superpoint_ros.network.engines.onnx_networks import OnnxRuntimeOnDevice, tensorrt_providers
from superpoint_ros.network.engines.parity import built_in_picture, check, compare
from superpoint_ros.network.engines.torch_engine import BATCHES, KINDS, TorchEngine
from superpoint_ros.network.engines.torch_network import TorchNetwork
from superpoint_ros.network.heatmap import DetectionSettings

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
LOGGER = "superpoint_ros.network"
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device on this machine")


class Graphs:
    """In the place of `GraphCapture`: work runs again at each replay and fills the same tensors anew."""

    def __init__(self):
        self.captures = self.replays = self.pools = 0

    def __call__(self):
        self.pools += 1
        return self.capture

    def capture(self, work):
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
    return CpuEngine("torch", checkpoint)


@pytest.fixture
def graphs():
    return Graphs()


@pytest.fixture
def engine(checkpoint, graphs):
    return TorchEngine(checkpoint, CPU, captures=graphs)


@pytest.fixture
def small(random_checkpoint, graphs):
    """Of a network that takes no time."""
    return TorchEngine(random_checkpoint(batch_norm=True), CPU, captures=graphs)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


def run(engine, count=1, size=(64, 80), **settings):
    return engine([noise(*size, seed) for seed in range(count)], [size] * count, DetectionSettings(**settings))


def arrays(extraction):
    return extraction.xy, extraction.scores, extraction.descriptors


def assert_same(found, expected, radius=0.0):
    for one, other in zip(found, expected, strict=True):
        assert len(one.xy) > 10
        assert compare(other, one, radius).holds(same=0.999, cosine=0.9999)
        assert (np.diff(one.scores) <= 0).all()
        assert one.descriptors.dtype == one.xy.dtype == one.scores.dtype == np.float32


def test_a_network_without_descriptors_is_refused(random_checkpoint):
    with pytest.raises(ValueError, match="^tiny: has no descriptor head"):
        TorchEngine(random_checkpoint(descriptor_dim=0), CPU)


def test_making_an_engine_leaves_the_checkpoint_alone(random_checkpoint):
    checkpoint = random_checkpoint(batch_norm=True)
    before = checkpoint.weights_id
    TorchEngine(checkpoint, CPU)
    assert checkpoint.weights_id == before


# What it computes


@pytest.mark.parametrize(
    "make", [TorchEngine, lambda checkpoint, _: CpuEngine("torch", checkpoint)], ids=["map", "numpy"]
)
@pytest.mark.parametrize(
    "options", [{}, {"batch_norm": True}, {"batch_norm": True, "norm_first": True}, {"stem": 2}], ids=str
)
@torch.no_grad()
def test_the_engine_equals_the_pipeline_written_out(random_checkpoint, make, options):
    checkpoint = random_checkpoint(**options)
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

    [got] = make(checkpoint, CPU)([picture], [(40, 56)], settings)
    assert len(expected) == 40 or len(expected) > 20
    assert got.xy.tolist() == [list(point) for point in expected]
    np.testing.assert_allclose(got.scores, kept.flat[order], rtol=1e-4)
    descriptors = [slow.bilinear(dense[0].numpy(), x, y) for x, y in expected]
    np.testing.assert_allclose(got.descriptors, descriptors, atol=1e-4)


@pytest.mark.parametrize("border", [0, 4])
@pytest.mark.parametrize("subpixel", [False, True])
def test_a_picture_in_a_batch_of_unequal_sizes_equals_itself_alone(small, border, subpixel):
    settings = DetectionSettings(border=border, subpixel=subpixel)
    sizes = [(64, 80), (21, 40), (32, 33), (64, 16)]
    pictures = [pad_to_cells(noise(*size, seed)) for seed, size in enumerate(sizes)]
    together = small(pictures, sizes, settings)
    for picture, size, got in zip(pictures, sizes, together, strict=True):
        [alone] = small([picture], [size], settings)
        assert len(alone.xy) > 3
        np.testing.assert_allclose(got.xy, alone.xy, atol=1e-3)
        np.testing.assert_allclose(got.scores, alone.scores, rtol=1e-4)
        np.testing.assert_allclose(got.descriptors, alone.descriptors, atol=1e-4)


@pytest.mark.parametrize("value", [0, 255])
def test_a_blank_picture_in_a_batch_has_no_keypoints(small, value):
    pictures = [noise(64, 80), np.full((32, 40), value, np.uint8)]
    settings = DetectionSettings(border=0)
    full, blank = small(pictures, [(64, 80), (32, 40)], settings)
    assert len(full.xy) > 0
    assert blank.xy.shape == (0, 2)
    assert blank.scores.shape == (0,)
    assert blank.descriptors.shape == (0, 16)


def test_results_are_the_same_each_time(small):
    settings = DetectionSettings(subpixel=True)
    first, again = (small([noise(64, 80)], [(64, 80)], settings)[0] for _ in range(2))
    for one, other in zip(arrays(first), arrays(again), strict=True):
        np.testing.assert_array_equal(one, other)


def test_results_are_float32_arrays_that_own_their_memory(small):
    [result] = small([noise(64, 80)], [(64, 80)], DetectionSettings())
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


@pytest.mark.parametrize(
    "changes", [{}, {"subpixel": True}, {"nms_radius": 0, "border": 0}, {"max_keypoints": 20}], ids=str
)
def test_keypoints_are_those_of_the_numpy_engine(engine, reference, changes):
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


def test_more_pictures_than_the_largest_batch_come_back_in_their_order(small):
    count = BATCHES[-1] + 3
    for seed, one in enumerate(run(small, count)):
        [alone] = small([noise(64, 80, seed)], [(64, 80)], DetectionSettings())
        np.testing.assert_array_equal(one.xy, alone.xy)


def test_half_precision_on_the_cpu_finds_what_single_precision_finds(checkpoint, reference, graphs):
    half = TorchEngine(checkpoint, CPU, "float16", captures=graphs)
    assert check(half, reference, 1.0).holds(*LIMITS["float16"][:2])


def test_descriptors_that_came_in_half_precision_have_unit_length_within_its_rounding(checkpoint):
    [found] = TorchEngine(checkpoint, CPU, "float16")([built_in_picture()], [(120, 160)], DetectionSettings())
    assert found.descriptors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-3)


def test_a_picture_that_needs_more_rounds_gets_them(engine, reference, monkeypatch):
    pictures, sizes = [built_in_picture((120, 160), seed) for seed in (0, 1)], [(120, 160)] * 2
    settings, rounds = DetectionSettings(max_keypoints=1000), []

    def counted(*given):
        rounds.append(given[-1])
        return dense_plan.strongest(*given)

    monkeypatch.setattr(engine, "_steps", Steps(strongest=counted, rounds=1))
    assert_same(engine(pictures, sizes, settings), reference(pictures, sizes, settings))
    assert rounds[:3] == [1, 1, 2]  # captured, replayed, gone on with


def test_float32_is_not_tf32(small, random_checkpoint):
    seen = []

    class Network(TorchNetwork):
        def __call__(self, grey):
            seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
            return super().__call__(grey)

    run(TorchEngine(random_checkpoint(), CPU, network=Network(random_checkpoint(), CPU, torch.float32)))
    assert set(seen) == {(False, False)}


# Plans and their graphs


def test_a_kind_of_pictures_is_captured_once_and_replayed(small, graphs):
    for _ in range(4):
        run(small)
    assert (graphs.captures, graphs.replays) == (1, 4)


def test_threshold_border_masks_and_limit_need_no_other_capture(small, random_checkpoint, graphs):
    mask = np.zeros((64, 80), bool)
    mask[20:, 30:] = True
    step_by_step = CpuEngine("torch", random_checkpoint(batch_norm=True))
    for changes in ({}, {"detection_threshold": 0.02}, {"border": 0}, {"border": 30}, {"max_keypoints": 7}, {}):
        for masks in (None, [mask]):
            arguments = [noise(64, 80)], [(61, 77)], DetectionSettings(**changes), masks
            [found], [expected] = small(*arguments), step_by_step(*arguments)
            np.testing.assert_array_equal(found.xy, expected.xy)
    assert graphs.captures == 1


@pytest.mark.parametrize("changes", [{"nms_radius": 3}, {"subpixel": True}, {"max_keypoints": FEWEST + 1}], ids=str)
def test_what_changes_the_steps_is_captured_anew(small, graphs, changes):
    run(small, nms_radius=0, max_keypoints=FEWEST)
    run(small, **{"nms_radius": 0, "max_keypoints": FEWEST, **changes})
    assert graphs.captures == 2


def test_batches_are_padded_to_a_few_sizes(small, graphs):
    for count in range(1, 9):
        assert len(run(small, count)) == count
    assert graphs.captures == len(BATCHES) == 4
    assert graphs.pools == 1  # they share their memory


def test_what_filled_a_batch_before_is_not_seen_in_a_smaller_one(small):
    full = run(small, 4)
    three = run(small, 3, detection_threshold=0.01)
    assert len(three) == 3
    for one, other in zip(run(small, 3), full, strict=False):
        np.testing.assert_array_equal(one.xy, other.xy)


def test_what_is_prepared_needs_no_capture_later(small, graphs):
    settings = DetectionSettings()
    assert small.prepare((64, 80), 3, settings) > 0
    assert graphs.captures == 3
    assert small.prepare((64, 80), 4, settings) == 0
    for count in (1, 2, 3, 4):
        run(small, count)
    assert graphs.captures == 3


def test_a_kind_that_was_not_used_for_long_makes_room_for_another(small, graphs, again):
    sizes = [(16, 16 + 8 * number) for number in range(KINDS + 1)]
    for size in sizes[:KINDS]:
        run(small, size=size)
    for _ in range(again):
        run(small, size=sizes[0])
    run(small, size=sizes[-1])  # the second goes
    assert graphs.captures == KINDS + 1
    for size in (sizes[0], *sizes[2:]):
        run(small, size=size)
    assert graphs.captures == KINDS + 1


def test_more_kinds_than_are_kept_do_not_capture_in_turn(random_checkpoint, graphs, caplog):
    engine, sizes = TorchEngine(random_checkpoint(), CPU, captures=graphs), [(16, 16 + 8 * n) for n in range(KINDS + 2)]
    step_by_step = TorchEngine(random_checkpoint(), CPU)
    with caplog.at_level(logging.WARNING, LOGGER):
        for _ in range(4):
            for size in sizes:
                seconds = engine.prepare(size, 1, DetectionSettings())
                [found], [expected] = run(engine, size=size), run(step_by_step, size=size)
                np.testing.assert_array_equal(found.xy, expected.xy)
        assert seconds == 0
    assert graphs.captures == KINDS
    assert [record.getMessage() for record in caplog.records] == [
        "More than 8 sizes or settings of pictures take turns on cpu: those beyond have no CUDA graph, and their steps "
        "run one by one, until one of the others was not used for 300 calls."
    ]


def test_freed_plans_are_made_again(small, graphs):
    [before] = run(small)
    small.free()
    [after] = run(small)
    assert (graphs.captures, graphs.pools) == (2, 2)
    np.testing.assert_array_equal(before.xy, after.xy)


def test_what_is_freed_is_gone_at_once(random_checkpoint):
    engine = TorchEngine(random_checkpoint(), CPU)
    run(engine)
    [plans] = engine._kinds.values()
    grey = weakref.ref(plans.by_batch[1]._inputs.grey)
    del plans
    gc.disable()
    try:
        engine.free()
        assert grey() is None
    finally:
        gc.enable()


def test_results_stay_what_they_were_when_the_buffers_are_used_again(small):
    [first] = run(small)
    before = [array.copy() for array in arrays(first)]
    small([noise(64, 80, seed=1)], [(64, 80)], DetectionSettings())
    for array, copy in zip(arrays(first), before, strict=True):
        assert array.base is None
        np.testing.assert_array_equal(array, copy)


@pytest.fixture
def again(monkeypatch):
    """The number of calls after which what failed is tried again, made small."""
    for module in (dense_plan, torch_engine):
        monkeypatch.setattr(module, "AGAIN", 8)
    return 8


class Failing(Graphs):
    """Captures fail for so many times."""

    def __init__(self, times, error="operation not permitted when stream is capturing"):
        super().__init__()
        self.times, self.error = times, error

    def capture(self, work):
        if self.times:
            self.times -= 1
            raise RuntimeError(self.error)
        return super().capture(work)


def test_a_capture_that_fails_once_is_tried_again_with_the_memory_of_other_plans(random_checkpoint, caplog):
    failing = Failing(0)
    engine = TorchEngine(random_checkpoint(), CPU, captures=failing)
    run(engine, size=(32, 40))
    failing.times = 1
    with caplog.at_level(logging.WARNING, LOGGER):
        run(engine)
    assert failing.captures == 2 and not caplog.records
    run(engine, size=(32, 40))  # whose plan was given up
    assert failing.captures == 3


def test_a_capture_that_fails_twice_costs_its_plan_the_graph_for_a_while_and_no_other(random_checkpoint, caplog, again):
    failing = Failing(2)
    engine = TorchEngine(random_checkpoint(), CPU, captures=failing)
    with caplog.at_level(logging.WARNING, LOGGER):
        [alone] = run(engine)
        run(engine, size=(32, 40))
    assert failing.captures == 1  # the other's
    assert [record.getMessage() for record in caplog.records] == [
        "A CUDA graph for 1 pictures of 80×64 cannot be captured (RuntimeError: operation not permitted when stream is "
        f"capturing), not with the memory of all others either; its steps run one by one for the next {again} calls."
    ]
    for _ in range(again - 2):
        [later] = run(engine)
    assert failing.captures == 1
    np.testing.assert_array_equal(later.xy, alone.xy)
    run(engine)
    assert failing.captures == 2


# Triton


@pytest.fixture
def with_triton(random_checkpoint, monkeypatch, graphs):
    """An engine whose last steps are these, in the place of Triton's kernels."""

    def make(strongest, captures=graphs):
        monkeypatch.setattr(torch_engine, "_triton", lambda: (Steps(strongest=strongest), None))
        return TorchEngine(random_checkpoint(), CPU, captures=captures, triton=True)

    return make


def refuse(*given):
    # as Triton's compiler: where first, why behind it
    raise RuntimeError("at 3:8:\n    x = tl.dot(a, b)\n        ^") from TypeError("dot() got an unexpected argument")


@pytest.mark.parametrize("captured", [True, False])
def test_kernels_that_do_not_compile_are_left_with_one_warning(
    with_triton, random_checkpoint, captured, graphs, caplog
):
    engine = with_triton(refuse, graphs if captured else None)
    expected = run(TorchEngine(random_checkpoint(), CPU), 3)
    with caplog.at_level(logging.WARNING, LOGGER):
        for _ in range(2):
            for one, other in zip(run(engine, 3), expected, strict=True):
                np.testing.assert_array_equal(one.xy, other.xy)
    assert not engine.triton
    assert [record.getMessage() for record in caplog.records] == [
        "Triton's kernels fail on cpu (TypeError: dot() got an unexpected argument); torch's own take their place."
    ]


def test_what_fails_without_tritons_kernels_too_is_no_fault_of_theirs(with_triton, caplog):
    engine = with_triton(dense_plan.strongest)
    with caplog.at_level(logging.WARNING, LOGGER), pytest.raises(ValueError, match="broadcast"):
        engine([noise(64, 80)], [(64, 80)], DetectionSettings(), [np.ones((3, 3), bool)])
    assert engine.triton and not caplog.records
    assert len(run(engine, 1)) == 1


# Lack of memory


class Hungry(TorchNetwork):
    """Lacks memory for more than `room` pictures at a time."""

    capturable = False
    room = 8

    def __call__(self, grey):
        if len(grey) > self.room:
            raise torch.cuda.OutOfMemoryError(f"Tried to allocate {len(grey)} GiB")
        return super().__call__(grey)


@pytest.fixture
def hungry(random_checkpoint):
    network = Hungry(random_checkpoint(), CPU, torch.float32)
    return network, TorchEngine(random_checkpoint(), CPU, network=network)


def test_what_memory_lacks_for_goes_through_with_fewer_at_a_time_and_later_whole_again(hungry, caplog, again):
    network, engine = hungry
    expected = run(engine, 5)
    network.room = 2
    with caplog.at_level(logging.WARNING, LOGGER):
        for _ in range(2):
            for one, other in zip(run(engine, 5), expected, strict=True):
                np.testing.assert_array_equal(one.xy, other.xy)
    assert [record.getMessage() for record in caplog.records] == [
        f"cpu lacks memory for {count} pictures of 80×64 at a time (Tried to allocate {count} GiB); "
        f"it takes {count // 2} for the next {again} calls."
        for count in (8, 4)
    ]
    network.room, batches, convolve = 8, [], network._convolve
    network._convolve = lambda x, *rest: batches.append(len(x)) or convolve(x, *rest)
    for _ in range(again):
        run(engine, 5)
    assert set(batches) == {1, 2, 8}


def test_the_longer_memory_lacks_the_more_seldom_all_graphs_are_given_up_to_try_again(hungry, again, caplog):
    network, engine = hungry

    def tries(calls):
        found = []
        for call in range(calls):
            caplog.clear()
            run(engine, 5)
            found += [call] * len(caplog.records)
        return found

    network.room = 4
    with caplog.at_level(logging.WARNING, LOGGER):
        assert tries(8 * again) == [0, again, 3 * again, 7 * again]
        network.room = 8
        assert tries(8 * again) == []
        network.room = 4
        assert tries(2 * again) == [0, again]


def test_memory_that_lacks_for_a_single_picture_is_said(hungry):
    network, engine = hungry
    network.room = 0
    with pytest.raises(torch.cuda.OutOfMemoryError):
        run(engine, 4)
    network.room = 8
    assert len(run(engine, 4)) == 4


def test_an_error_of_another_kind_is_not_taken_for_a_lack_of_memory(hungry, monkeypatch):
    network, engine = hungry
    monkeypatch.setattr(Hungry, "__call__", lambda self, grey: grey.no_such_step)
    with pytest.raises(AttributeError):
        run(engine, 4)


# TensorRT's way through ONNX Runtime, with another provider


@pytest.mark.skipif(not installed("onnxruntime"), reason="not installed: onnxruntime and onnx")
def test_onnx_runtime_reads_and_writes_tensors_in_place(checkpoint, reference, graphs):
    network = OnnxRuntimeOnDevice(onnx_bytes(checkpoint.build()), CPU, ["CPUExecutionProvider"])
    engine = TorchEngine(checkpoint, CPU, "float32", "tensorrt", network, graphs)
    pictures, sizes = [built_in_picture((64, 80), seed) for seed in (0, 1)], [(64, 80)] * 2
    assert_same(engine(pictures, sizes, DetectionSettings()), reference(pictures, sizes, DetectionSettings()))
    assert_same(
        engine(pictures[:1], sizes[:1], DetectionSettings()), reference(pictures[:1], sizes[:1], DetectionSettings())
    )
    assert not graphs.captures  # ONNX Runtime has a stream of its own


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.skipif(not installed("onnxruntime"), reason="not installed: onnxruntime and onnx")
def test_a_provider_that_onnx_runtime_has_not_is_named(random_checkpoint, tmp_path):
    content, providers = onnx_bytes(random_checkpoint().build()), tensorrt_providers(CUDA, True, tmp_path)
    if torch.cuda.is_available():
        pytest.skip("this machine may have it")
    with pytest.raises(RuntimeError, match="does not load TensorrtExecutionProvider, only"):
        OnnxRuntimeOnDevice(content, CUDA, providers)


# CUDA


def on_gpu(checkpoint, precision="float32", triton=False):
    return TorchEngine(checkpoint, CUDA, precision, "cudagraph", captures=lambda: GraphCapture(CUDA), triton=triton)


WITH_TRITON = pytest.mark.parametrize(
    "triton", [False, pytest.param(True, marks=pytest.mark.skipif(not has_triton(), reason="not installed: triton"))]
)


@needs_cuda
def test_cuda_finds_the_keypoints_that_the_cpu_finds(photograph):
    checkpoint, settings = load_checkpoint(DEFAULT_WEIGHTS), DetectionSettings()
    [there] = TorchEngine(checkpoint, CUDA)([photograph], [(240, 320)], settings)
    [here] = CpuEngine("torch", checkpoint)([photograph], [(240, 320)], settings)
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
        TorchEngine(checkpoint, CUDA, precision)([photograph], [(240, 320)], settings)[0]
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
    engine = TorchEngine(random_checkpoint(), CUDA)
    with TransfersToHost() as transfers:
        engine([photograph] * 2, [(240, 320)] * 2, DetectionSettings(max_keypoints=100))
    assert len(transfers.shapes) == 1


@needs_cuda
@WITH_TRITON
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_cuda_graph_finds_what_torch_finds_step_by_step(checkpoint, precision, triton, caplog):
    graph, eager = on_gpu(checkpoint, precision, triton), TorchEngine(checkpoint, CUDA)
    with caplog.at_level(logging.WARNING, LOGGER):
        for seed in range(3):
            picture = built_in_picture((240, 320), seed)
            [found], [expected] = (engine([picture], [(240, 320)], DetectionSettings()) for engine in (graph, eager))
            assert compare(expected, found, 1.0).holds(0.99, 0.99)
    assert not caplog.records  # it was captured


@needs_cuda
@WITH_TRITON
def test_graphs_that_share_memory_do_not_disturb_each_other(checkpoint, triton):
    engine = on_gpu(checkpoint, triton=triton)
    sizes = [(240, 320), (120, 160), (480, 640)]
    first = [engine([built_in_picture(size)], [size], DetectionSettings())[0] for size in sizes]
    again = [engine([built_in_picture(size)], [size], DetectionSettings())[0] for size in sizes]
    for one, other in zip(first, again, strict=True):
        assert compare(one, other, 0.0).holds(0.999, 0.9999)


@needs_cuda
def test_frames_of_a_known_shape_take_no_more_memory_on_the_device(checkpoint):
    engine = on_gpu(checkpoint)
    arguments = [built_in_picture((240, 320))], [(240, 320)], DetectionSettings()
    engine(*arguments)
    before = torch.cuda.memory_allocated()
    for _ in range(20):
        engine(*arguments)
    assert torch.cuda.memory_allocated() == before


@needs_cuda
def test_freed_plans_give_the_gpu_its_memory_back(checkpoint):
    torch.cuda.empty_cache()
    engine = on_gpu(checkpoint)
    engine([built_in_picture((240, 320))], [(240, 320)], DetectionSettings())
    engine.free()
    before = torch.cuda.memory_reserved()
    engine.prepare((480, 640), 4, DetectionSettings())
    assert torch.cuda.memory_reserved() > before
    engine.free()
    assert torch.cuda.memory_reserved() <= before


@needs_cuda
@WITH_TRITON
def test_a_captured_engine_reads_a_changed_threshold_border_and_mask(checkpoint, triton):
    graph, eager = on_gpu(checkpoint, triton=triton), TorchEngine(checkpoint, CUDA)
    picture, size, mask = built_in_picture((240, 320)), (240, 320), np.zeros((240, 320), bool)
    mask[60:] = True
    for changes in ({}, {"detection_threshold": 0.02}, {"border": 40}, {"max_keypoints": 50}):
        for masks in (None, [mask]):
            [found], [expected] = (
                each([picture], [size], DetectionSettings(**changes), masks) for each in (graph, eager)
            )
            np.testing.assert_array_equal(found.xy, expected.xy)
