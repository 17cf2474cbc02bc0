from __future__ import annotations

import pickle
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import superpoint_ros
from superpoint_ros.features.extractor import Extractor, Features
from superpoint_ros.network.checkpoint import DEFAULT_WEIGHTS, load_checkpoint
from superpoint_ros.network.engines import choice
from superpoint_ros.network.engines.devices import DeviceUnusable
from superpoint_ros.network.heatmap import DetectionSettings


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def assert_same(got, expected):
    assert got.size == expected.size
    assert len(got) == len(expected)
    np.testing.assert_allclose(got.xy, expected.xy, atol=1e-3)
    np.testing.assert_allclose(got.scores, expected.scores, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(got.descriptors, expected.descriptors, atol=1e-3)


@pytest.fixture(scope="module")
def tiny(tiny_weights):
    """tiny(**options): an extractor with a small random network; like() those it had before."""
    made = {}

    def make(**options):
        key = repr(options)
        if key not in made:
            made[key] = Extractor(tiny_weights, device="cpu", **options)
        return made[key]

    return make


# The public names


def test_the_public_names_are_those_of_the_design():
    assert superpoint_ros.Extractor is Extractor
    assert superpoint_ros.Features is Features
    for name in superpoint_ros.__all__:
        home = getattr(superpoint_ros, name).__module__
        assert home.startswith(("superpoint_ros.features.", "superpoint_ros.frontend."))
    with pytest.raises(AttributeError, match="no attribute 'extract'"):
        _ = superpoint_ros.extract


def test_importing_the_package_alone_loads_neither_torch_nor_opencv():
    code = "import sys, superpoint_ros; print(sorted({'torch', 'cv2'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# What comes out


@settings(max_examples=40)
@given(
    height=st.integers(16, 70),
    width=st.integers(16, 70),
    colour=st.booleans(),
    border=st.sampled_from([0, 1, 4]),
    subpixel=st.booleans(),
)
def test_any_size_from_16_by_16_gives_features_inside_the_image(tiny, height, width, colour, border, subpixel):
    image = noise(height, width, 3) if colour else noise(height, width)
    f = tiny(border=border, subpixel=subpixel)(image)
    count = len(f)
    assert count > 0
    assert f.size == (height, width)
    assert (f.xy.shape, f.xy.dtype) == ((count, 2), np.float32)
    assert (f.scores.shape, f.scores.dtype) == ((count,), np.float32)
    assert (f.descriptors.shape, f.descriptors.dtype) == ((count, 16), np.float32)
    reach = max(border - 0.5 * subpixel, 0)
    assert (f.xy >= reach).all()
    assert (f.xy <= np.array([width, height]) - 1 - reach).all()
    assert (np.diff(f.scores) <= 0).all()
    assert (f.scores > 0.005).all()
    assert (f.scores < 1).all()
    np.testing.assert_allclose(np.linalg.norm(f.descriptors, axis=1), 1, atol=1e-5)
    assert len(np.unique(f.xy.round(3), axis=0)) == count


def test_the_default_extractor_finds_keypoints_on_a_photograph(extractor, photograph):
    f = extractor(photograph)
    assert 200 < len(f) <= 1024
    assert f.descriptors.shape == (len(f), 256)
    assert f.size == (240, 320)
    distance = np.abs(f.xy[:, None] - f.xy[None]).max(axis=2) + np.eye(len(f)) * 99
    assert distance.min() > 4


def test_the_strongest_keypoints_are_kept(tiny):
    everything, some = tiny()(noise(60, 80)), tiny(max_keypoints=20)(noise(60, 80))
    assert len(some) == 20
    np.testing.assert_array_equal(some.xy, everything.xy[:20])


def test_subpixel_moves_keypoints_by_less_than_a_pixel(tiny):
    coarse, fine = tiny()(noise(60, 80)), tiny(subpixel=True)(noise(60, 80))
    moved = np.abs(fine.xy - coarse.xy)
    assert 0.1 < moved.max() <= 0.5
    assert (coarse.xy == coarse.xy.round()).all()
    np.testing.assert_array_equal(fine.scores, coarse.scores)


def test_settings_can_be_replaced_between_images(tiny_weights):
    extractor = Extractor(tiny_weights, device="cpu")
    before = len(extractor(noise(60, 80)))
    extractor.settings = DetectionSettings(max_keypoints=5)
    assert before > 5 == len(extractor(noise(60, 80)))


# Images


def test_a_grey_image_and_the_same_in_colour_give_the_same_features(extractor, photograph):
    colour = np.dstack([photograph] * 3)
    assert_same(extractor(colour), extractor(photograph))


def test_colour_is_read_as_bgr(tiny):
    blue, red = np.zeros((2, 48, 64, 3), np.uint8)
    blue[..., 0] = red[..., 2] = noise(48, 64)
    for image in (blue, red):
        assert_same(tiny()(image), tiny()(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)))
    assert blue.sum() == red.sum()
    assert not np.array_equal(tiny()(blue).scores, tiny()(red).scores)


@pytest.mark.parametrize("options", [{}, {"resize": (40, 48)}], ids=["as it is", "resized"])
def test_a_view_gives_what_its_copy_gives_and_is_left_alone(tiny, options):
    for image in (noise(96, 128)[::2, ::-2], noise(64, 48).T, noise(96, 128, 3)[5:53, 3:67, ::-1]):
        before = image.copy()
        assert_same(tiny(**options)(image), tiny(**options)(np.ascontiguousarray(image)))
        np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("value", [0, 1, 128, 255])
@pytest.mark.parametrize("shape", [(240, 320), (61, 83), (16, 16), (48, 64, 3)], ids=str)
def test_a_blank_image_has_no_keypoints(extractor, value, shape):
    f = extractor(np.full(shape, value, np.uint8))
    assert len(f) == 0
    assert f.xy.shape == (0, 2)
    assert f.scores.shape == (0,)
    assert f.descriptors.shape == (0, 256)
    assert f.size == shape[:2]


def test_a_blank_image_has_no_keypoints_without_a_border_or_when_resized(tiny):
    for options in ({"border": 0}, {"resize": 40}, {"border": 0, "resize": (80, 70)}):
        assert len(tiny(**options)(np.full((61, 83), 7, np.uint8))) == 0


def test_a_letterbox_has_no_keypoints(extractor, photograph):
    image = np.zeros((240, 320), np.uint8)
    image[60:180] = photograph[60:180]
    y = extractor(image).xy[:, 1]
    assert len(y) > 100
    assert y.min() >= 60 - 4
    assert y.max() < 180 + 4


BAD = [
    (np.zeros((48, 64), np.float32), "dtype float32"),
    (np.full((48, 64), np.nan), "dtype float64"),
    (np.zeros((0, 0), np.uint8), r"shape \(0, 0\)"),
    (np.zeros((48, 64, 4), np.uint8), r"shape \(48, 64, 4\)"),
    (np.zeros((8, 64), np.uint8), r"shape \(8, 64\)"),
    (None, "NoneType"),
    ([[0, 1], [2, 3]], "list"),
]


@pytest.mark.parametrize("image, given", BAD, ids=[given for _, given in BAD])
def test_a_bad_image_is_refused_and_the_next_good_one_is_not(tiny, image, given):
    with pytest.raises(ValueError, match=f"^image .*{given}"):
        tiny()(image)
    with pytest.raises(ValueError, match=rf"^images\[1\]: image .*{given}"):
        tiny().batch([noise(48, 64), image, noise(48, 64)])
    assert len(tiny()(noise(48, 64))) > 0


# Batches


def test_a_batch_of_unequal_sizes_equals_each_image_alone(extractor, photograph):
    images = [photograph, photograph[20:141, 30:230], np.dstack([photograph[:64, :57]] * 3)]
    together = extractor.batch(images)
    for got, image in zip(together, images, strict=True):
        alone = extractor(image)
        assert got.size == image.shape[:2]
        # Rounding may let two neighbours of nearly equal score change places.
        common = {tuple(xy) for xy in got.xy} & {tuple(xy) for xy in alone.xy}
        assert len(common) >= 0.99 * max(len(got), len(alone))
        n = min(len(got), len(alone))
        np.testing.assert_allclose(got.scores[:n], alone.scores[:n], rtol=1e-2, atol=1e-4)


@settings(max_examples=12)  # the first pass at another size takes torch 0.1 s
@given(sizes=st.lists(st.tuples(st.integers(16, 50), st.integers(16, 50)), min_size=1, max_size=4))
def test_a_batch_of_any_sizes_equals_each_image_alone(tiny, sizes):
    extractor = tiny(border=0, subpixel=True)
    images = [noise(*size, seed=seed) for seed, size in enumerate(sizes)]
    for got, image in zip(extractor.batch(images), images, strict=True):
        assert_same(got, extractor(image))


def test_a_batch_of_equal_sizes_equals_each_image_alone(tiny):
    images = [noise(40, 56, seed=seed) for seed in range(3)]
    for got, image in zip(tiny().batch(images), images, strict=True):
        assert_same(got, tiny()(image))


def test_an_empty_batch_gives_an_empty_list(tiny):
    assert tiny().batch([]) == []


# Resizing


def test_an_image_twice_as_large_has_its_keypoints_at_the_centres_of_pixel_blocks(tiny):
    image = noise(48, 64)
    doubled = image.repeat(2, axis=0).repeat(2, axis=1)
    for resize in (64, (48, 64)):
        f, expected = tiny(resize=resize)(doubled), tiny()(image)
        assert f.size == (96, 128)
        np.testing.assert_allclose(f.xy, (expected.xy + 0.5) * 2 - 0.5, atol=1e-4)
        np.testing.assert_allclose(f.descriptors, expected.descriptors, atol=1e-5)


def test_sides_may_be_scaled_differently(tiny):
    image = noise(48, 64)
    stretched = image.repeat(3, axis=1)
    f, expected = tiny(resize=(48, 64))(stretched), tiny()(image)
    np.testing.assert_allclose(f.xy[:, 0], (expected.xy[:, 0] + 0.5) * 3 - 0.5, atol=1e-4)
    np.testing.assert_array_equal(f.xy[:, 1], expected.xy[:, 1])


def test_resized_keypoints_lie_where_those_of_the_whole_image_are(tiny_weights, photograph):
    large = cv2.resize(photograph, (640, 480), interpolation=cv2.INTER_CUBIC)
    small = Extractor(device="cpu", max_keypoints=50, resize=320)(large)
    whole = Extractor(device="cpu", max_keypoints=50)(photograph)
    back = (whole.xy + 0.5) * 2 - 0.5
    nearest = np.abs(small.xy[:, None] - back[None]).max(axis=2).min(axis=1)
    assert (nearest <= 2).mean() > 0.8


def test_scales_are_source_pixels_to_a_network_pixel(tiny):
    image = noise(60, 80)
    for resize, scale in ((None, 1), (40, 2), (160, 0.5), ((60, 20), 2), ((30, 20), 8**0.5)):
        f = tiny(resize=resize)(image)
        assert len(f) > 0
        np.testing.assert_allclose(f.scales, np.full(len(f), scale, np.float32))


def test_features_made_without_scales_have_ones_and_those_of_another_length_are_refused():
    parts = np.zeros((3, 2), np.float32), np.ones(3, np.float32), np.zeros((3, 8), np.float32), (20, 20)
    np.testing.assert_array_equal(Features(*parts).scales, np.ones(3, np.float32))
    with pytest.raises(ValueError, match=r"scales has shape \(2,\), expected \(3,\)"):
        Features(*parts, scales=np.ones(2, np.float32))


def test_rows_are_chosen_of_every_array(tiny):
    f, some = tiny()(noise(60, 80)), np.array([7, 2, 2])
    chosen = f.rows(some)
    for name in ("xy", "scores", "descriptors", "scales"):
        np.testing.assert_array_equal(getattr(chosen, name), getattr(f, name)[some])
    assert chosen.size == f.size


def test_an_image_that_resizing_makes_too_thin_is_refused(tiny):
    with pytest.raises(ValueError, match="64×20 resized to a longer side of 32 is 32×10 pixels"):
        tiny(resize=32)(noise(20, 64))


# Masks


@pytest.mark.parametrize("resize", [None, 160, 500, (96, 200)])
def test_keypoints_lie_where_the_mask_of_the_source_image_allows(extractor, photograph, resize):
    mask = np.zeros(photograph.shape, bool)
    mask[101:, :203] = True
    extractor.resize = resize
    try:
        found, free = extractor.batch([photograph] * 2, [mask, None])
    finally:
        extractor.resize = None
    column, row = np.rint(found.xy).astype(int).T
    assert len(found) > 20 and mask[row, column].all()
    column, row = np.rint(free.xy).astype(int).T
    assert not mask[row, column].all()


def test_a_mask_of_another_shape_is_refused(tiny_weights):
    with pytest.raises(ValueError, match=r"^mask has shape \(32, 64\), its image \(64, 64\)$"):
        Extractor(tiny_weights, device="cpu", engine="torch").batch([noise(64, 64)], [np.ones((32, 64), bool)])


# Arguments


def test_the_default_weights_are_named_by_their_id(extractor):
    assert extractor.weights_id == load_checkpoint(DEFAULT_WEIGHTS).weights_id
    assert extractor.descriptor_dim == 256
    assert extractor.device == "cpu"


def test_the_engine_says_what_it_runs_on(tiny_weights):
    assert Extractor(tiny_weights, device="cpu", engine="torch").engine == "torch float32"


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"engine": "tensorflow"}, "^engine must be one of auto, .*torch.* got 'tensorflow'$"),
        ({"device": "gpu"}, "^device must be auto, cpu, cuda or cuda:N, got 'gpu'$"),
        ({"device": None}, "^device must be auto, cpu, cuda or cuda:N, got None$"),
        ({"precision": "int4"}, "^precision must be one of .* got 'int4'$"),
        ({"precision": "float16"}, "^precision 'float16' needs a CUDA device"),
        ({"max_keypoints": 0}, "^max_keypoints must be .* got 0$"),
        ({"detection_threshold": 2}, "^detection_threshold must be .* got 2$"),
        ({"nms_radius": -1}, "^nms_radius must be .* got -1$"),
        ({"border": 0.5}, "^border must be .* got 0.5$"),
        ({"resize": 8}, "^resize must be .* got 8$"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_bad_argument_is_refused_by_name(tiny_weights, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Extractor(**{"weights": tiny_weights, "device": "cpu", **arguments})


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.pth: no such weights file"):
        Extractor(tmp_path / "none.pth", device="cpu")


# Levels


def levels_alone(tiny, image, scales, **options):
    """Each level as an extraction with `resize` of its own."""
    sizes = [(round(image.shape[0] * scale), round(image.shape[1] * scale)) for scale in scales]
    return [tiny(resize=size, **options)(image) for size in sizes]


@pytest.mark.parametrize("scales", [(1.0, 0.7, 0.5), (1.4, 1.0), (0.5,), (1.0, 0.1)])
@pytest.mark.parametrize("subpixel", [False, True])
def test_levels_find_what_each_finds_alone(tiny, scales, subpixel):
    image = noise(90, 120)
    f = tiny(scales=scales, subpixel=subpixel, max_keypoints=10_000)(image)
    alone = levels_alone(tiny, image, [scale for scale in scales if scale > 0.2], subpixel=subpixel)
    assert len(f) == sum(len(level) for level in alone)
    assert (np.diff(f.scores) <= 0).all()
    for level in alone:
        some = f.rows(np.flatnonzero(f.scales == level.scales[0]))
        assert_same(some, level)


def test_levels_share_the_keypoints_by_their_pixels(tiny):
    image = noise(120, 160)
    f = tiny(scales=(1.0, 0.5), max_keypoints=50)(image)
    whole, half = levels_alone(tiny, image, (1.0, 0.5))
    assert len(f) == 50 and len(whole) > 40 and len(half) > 10
    for level, share in ((whole, 40), (half, 10)):
        assert_same(f.rows(np.flatnonzero(f.scales == level.scales[0])), level.rows(np.arange(share)))


@settings(max_examples=25)
@given(
    height=st.integers(16, 60),
    width=st.integers(16, 60),
    resize=st.sampled_from([None, 80, (40, 40)]),
    scales=st.sampled_from([(1.0, 0.5), (1.4, 1.0, 0.7), (2.0,)]),
)
def test_keypoints_of_all_levels_lie_inside_the_image(tiny, height, width, resize, scales):
    try:
        f = tiny(border=0, subpixel=True, resize=resize, scales=scales)(noise(height, width))
    except ValueError as error:
        assert "both sides must have at least 16" in str(error)
        return
    assert len(f) > 0
    assert (f.xy >= 0).all() and (f.xy <= np.array([width, height]) - 1).all()


def test_keypoints_of_an_enlarged_image_without_a_border_lie_inside_it(tiny):
    f = tiny(border=0, resize=(120, 160))(noise(60, 80))
    assert f.xy.min() == 0 and (f.xy.max(axis=0) <= (79, 59)).all()


def test_a_batch_with_levels_equals_each_image_alone(tiny):
    extractor = tiny(scales=(1.0, 0.5, 0.3), max_keypoints=60)
    images = [noise(60, 80, seed=1), noise(40, 100, seed=2), noise(60, 80, seed=3), noise(16, 16, seed=4)]
    for image, together in zip(images, extractor.batch(images), strict=True):
        assert_same(together, extractor(image))


def test_masks_hold_at_every_level(tiny):
    image, mask = noise(120, 160), np.zeros((120, 160), bool)
    mask[30:90, 40:80] = True
    [f] = tiny(scales=(1.0, 0.5)).batch([image], [mask])
    assert set(f.scales) == {1.0, 2.0}
    column, row = np.rint(f.xy).astype(int).T
    assert mask[row, column].all()
    with pytest.raises(ValueError, match="1 masks are given for 2 images"):
        tiny().batch([image, image], [mask])


def test_pictures_of_one_level_go_through_the_network_together(tiny_weights):
    extractor, shapes = Extractor(tiny_weights, device="cpu", scales=(1.0, 0.5)), []
    engine = extractor._engine
    extractor._engine = lambda pictures, *rest: shapes.append([p.shape for p in pictures]) or engine(pictures, *rest)
    extractor.batch([noise(64, 80), noise(64, 80)])
    assert shapes == [[(64, 80)] * 2, [(32, 40)] * 2]


def test_scales_can_be_replaced_between_images(tiny_weights):
    extractor = Extractor(tiny_weights, device="cpu", scales="video")
    assert len(set(extractor(noise(60, 80)).scales)) == 2
    extractor.scales = (1.0,)
    assert len(set(extractor(noise(60, 80)).scales)) == 1


# A GPU in trouble


def test_features_are_numpy_alone_and_pickle(tiny):
    f = tiny(scales=(1.0, 0.5))(noise(60, 80))
    for name, value in vars(f).items():
        assert isinstance(value, (np.ndarray, tuple)), name
    again = pickle.loads(pickle.dumps(f))
    np.testing.assert_array_equal(again.descriptors, f.descriptors)
    assert len(pickle.dumps(f)) < 1.2 * sum(array.nbytes for array in vars(f).values() if isinstance(array, np.ndarray))


def unusable(device):
    raise DeviceUnusable(f"GPU {device} cannot be used: CUDA error: no kernel image is available")


@pytest.fixture
def broken_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(choice, "require_usable", unusable)


@pytest.mark.parametrize("engine", ["auto", "cudagraph", "torch"])
def test_auto_leaves_a_gpu_that_is_there_but_cannot_be_used_and_says_why(tiny_weights, broken_gpu, caplog, engine):
    extractor = Extractor(tiny_weights, engine=engine)
    assert extractor.device == "cpu"
    assert extractor.trouble == "GPU cuda:0 cannot be used: CUDA error: no kernel image is available"
    assert f"{extractor.trouble}; the CPU is used." in [record.getMessage() for record in caplog.records]
    assert len(extractor(noise(60, 80))) > 0


def test_a_gpu_that_is_asked_for_by_name_and_cannot_be_used_is_an_error(tiny_weights, broken_gpu):
    with pytest.raises(DeviceUnusable, match="no kernel image"):
        Extractor(tiny_weights, device="cuda")


def test_a_cpu_has_no_trouble_and_nothing_to_prepare(tiny_weights):
    extractor = Extractor(tiny_weights, device="cpu")
    assert (extractor.trouble, extractor.prepare((60, 80), 4)) == ("", 0)


def test_every_level_is_prepared_at_the_size_at_which_it_goes_through_the_network(tiny_weights):
    extractor, asked, run = Extractor(tiny_weights, device="cpu", scales=(1.0, 0.5), resize=(61, 83)), [], []

    class Engine:
        def prepare(self, shape, count, settings):
            asked.append((shape, count))
            return 0.5

        def __call__(self, pictures, *rest):
            run.extend((picture.shape, 3) for picture in pictures)
            return engine(pictures, *rest)

    engine, extractor._engine = extractor._engine, Engine()
    assert extractor.prepare((480, 640), 3) == 1.0
    extractor(noise(480, 640))
    assert asked == run == [((64, 88), 3), ((32, 48), 3)]


# Weights


def test_weights_in_memory_serve_as_those_of_a_file_do(tiny_weights):
    image = noise(96, 128)
    of_file, in_memory = (
        Extractor(weights, device="cpu", detection_threshold=0.0)
        for weights in (tiny_weights, load_checkpoint(tiny_weights))
    )
    assert of_file.weights_id == in_memory.weights_id
    assert_same(in_memory(image), of_file(image))
