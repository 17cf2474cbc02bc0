"""Pairs read from disk and made from photographs: their homographies are true."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from superpoint_training.evaluation.pairs import (
    hpatches_pairs,
    read_resized,
)
from superpoint_training.evaluation.warps import (
    KINDS,
    camera_homography,
    list_photographs,
    render,
    rotation_pairs,
    warped_pairs,
    zoom_pairs,
)
from superpoint_training.homography import scaling, warp_points


def blob(centre: tuple[float, float], size: tuple[int, int], sigma: float = 4.0) -> np.ndarray:
    """A bright Gaussian on grey, whose centroid is its centre."""
    y, x = np.mgrid[: size[0], : size[1]]
    distance = (x - centre[0]) ** 2 + (y - centre[1]) ** 2
    return (40 + 200 * np.exp(-distance / (2 * sigma**2))).round().astype(np.uint8)


def centroid(image: np.ndarray) -> np.ndarray:
    weight = np.maximum(image.astype(float) - 60, 0)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


def write_sequence(folder: Path, suffix: str = "png", count: int = 3) -> None:
    """A sequence whose picture k is picture 1 moved by 10 (k - 1) pixels to the right, 4 down."""
    folder.mkdir(parents=True)
    for k in range(1, count + 1):
        picture = blob((60 + 10 * (k - 1), 40 + 4 * (k - 1)), (120, 160))
        picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
        cv2.imwrite(str(folder / f"{k}.{suffix}"), picture)
        if k > 1:
            matrix = np.array([[1.0, 0, 10 * (k - 1)], [0, 1, 4 * (k - 1)], [0, 0, 1]])
            np.savetxt(folder / f"H_1_{k}", matrix)


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "photographs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(3):
        noise = rng.integers(0, 256, (12, 16), np.uint8)
        picture = cv2.resize(noise, (160, 120), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{k}.png"), picture)
    return list_photographs(folder)


# --- HPatches ------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "ppm", "jpg"])
def test_the_first_picture_is_paired_with_each_other(tmp_path: Path, suffix: str) -> None:
    write_sequence(tmp_path / "v_moved", suffix)
    write_sequence(tmp_path / "i_lit", suffix)
    pairs = hpatches_pairs(tmp_path, 160)
    assert [pair.name for pair in pairs] == ["i_lit 1-2", "i_lit 1-3", "v_moved 1-2", "v_moved 1-3"]
    assert [pair.kind for pair in pairs] == ["illumination"] * 2 + ["viewpoint"] * 2


def test_all_pairs_are_every_two_pictures_with_their_homography(tmp_path: Path) -> None:
    write_sequence(tmp_path / "v_moved")
    pairs = hpatches_pairs(tmp_path, 160, all_pairs=True)
    assert [pair.name for pair in pairs] == ["v_moved 1-2", "v_moved 1-3", "v_moved 2-3"]
    expected = [[1, 0, 10], [0, 1, 4], [0, 0, 1]]
    np.testing.assert_allclose(pairs[2].load().homography, expected, atol=1e-12)


@pytest.mark.parametrize("size", [160, 320, 100])
def test_the_homography_fits_the_resized_pictures(tmp_path: Path, size: int) -> None:
    write_sequence(tmp_path / "v_moved")
    for pair in hpatches_pairs(tmp_path, size):
        views = pair.load()
        assert max(views.reference.shape) == max(views.current.shape) == size
        mapped = warp_points(centroid(views.reference)[None], views.homography)[0]
        np.testing.assert_allclose(mapped, centroid(views.current), atol=0.05)


def test_scaling_maps_pixel_edges_to_pixel_edges() -> None:
    # The outer edges, -0.5 and width - 0.5, stay outer edges: the half-pixel convention.
    edges = np.array([[-0.5, -0.5], [159.5, 119.5]])
    mapped = warp_points(edges, scaling((120, 160), (60, 320)))
    np.testing.assert_allclose(mapped, [[-0.5, -0.5], [319.5, 59.5]])


def test_pictures_of_a_pair_may_differ_in_size(tmp_path: Path) -> None:
    write_sequence(tmp_path / "v_moved", count=2)
    picture = cv2.imread(str(tmp_path / "v_moved/2.png"), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(tmp_path / "v_moved/2.png"), picture[:100])
    views = hpatches_pairs(tmp_path, 320)[0].load()
    assert (views.reference.shape, views.current.shape) == ((240, 320), (200, 320))
    mapped = warp_points(centroid(views.reference)[None], views.homography)[0]
    np.testing.assert_allclose(mapped, centroid(views.current), atol=0.1)


def test_a_directory_without_sequences_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected i_\* or v_\*"):
        hpatches_pairs(tmp_path, 160)


def test_a_missing_homography_is_named(tmp_path: Path) -> None:
    write_sequence(tmp_path / "v_moved")
    (tmp_path / "v_moved/H_1_3").unlink()
    with pytest.raises(ValueError, match="H_1_3: no such file"):
        hpatches_pairs(tmp_path, 160)


@pytest.mark.parametrize("content", ["1 0 0 0 1 0", "a b c", "1 0 0 0 1 0 0 0 nan", "0 0 0 0 0 0 0 0 0"])
def test_a_malformed_homography_is_named(tmp_path: Path, content: str) -> None:
    write_sequence(tmp_path / "v_moved")
    (tmp_path / "v_moved/H_1_2").write_text(content)
    with pytest.raises(ValueError, match="H_1_2: "):
        hpatches_pairs(tmp_path, 160)


def test_a_sequence_without_a_first_picture_is_named(tmp_path: Path) -> None:
    write_sequence(tmp_path / "v_moved")
    (tmp_path / "v_moved/1.png").unlink()
    with pytest.raises(ValueError, match=r"v_moved: expected pictures 1, 2"):
        hpatches_pairs(tmp_path, 160)


def test_what_is_not_a_picture_is_named(tmp_path: Path) -> None:
    write_sequence(tmp_path / "v_moved", count=2)
    (tmp_path / "v_moved/2.png").write_text("no picture")
    with pytest.raises(ValueError, match="2.png: 10 bytes are not a readable picture"):
        hpatches_pairs(tmp_path, 160)[0].load()


# --- warps ---------------------------------------------------------------------------------


def test_the_camera_keeps_the_centre_where_it_is() -> None:
    homography = camera_homography((120, 160), rotation=33, tilt=40, axis=70, scale=1.3)
    np.testing.assert_allclose(warp_points(np.array([[79.5, 59.5]]), homography), [[79.5, 59.5]])


def test_a_quarter_turn_takes_the_right_down() -> None:
    homography = camera_homography((101, 101), rotation=90)
    np.testing.assert_allclose(warp_points(np.array([[60.0, 50.0]]), homography), [[50, 60]])


def test_tilting_shortens_one_axis_by_the_cosine() -> None:
    homography = camera_homography((101, 101), tilt=60, axis=0)
    points = warp_points(np.array([[50.1, 50.0], [50.0, 50.1]]), homography)
    np.testing.assert_allclose(points, [[50.1, 50.0], [50.0, 50.05]], atol=1e-3)


def test_what_tilts_away_gets_smaller() -> None:
    homography = camera_homography((101, 101), tilt=30, axis=0)
    x = np.array([[40.0, 10], [60, 10], [40, 90], [60, 90]])
    mapped = warp_points(x, homography)
    near, far = mapped[1, 0] - mapped[0, 0], mapped[3, 0] - mapped[2, 0]
    assert near > 20 > far


def test_shift_and_scale_are_in_pixels_and_about_the_centre() -> None:
    homography = camera_homography((100, 200), scale=2, shift=(5, -3))
    points = np.array([[99.5, 49.5], [100.5, 49.5]])
    np.testing.assert_allclose(warp_points(points, homography), [[104.5, 46.5], [106.5, 46.5]])


@pytest.mark.parametrize("change", [{"rotation": 75}, {"tilt": 35, "axis": 20}, {"scale": 0.6}, {"scale": 1.7}])
def test_the_rendered_picture_moves_as_the_homography_says(change: dict[str, float]) -> None:
    centre = (95.0, 52.0)
    homography = camera_homography((120, 160), **change, shift=(4.3, -2.6))
    moved = centroid(render(blob(centre, (120, 160)), homography))
    # Perspective makes a blob lopsided, so that its centroid is not quite its centre.
    np.testing.assert_allclose(moved, warp_points(np.array([centre]), homography)[0], atol=0.15)


def test_what_shrinks_does_not_alias() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (120, 80))
    shrunk = render(stripes, camera_homography((120, 160), scale=0.5))
    assert np.abs(shrunk[40:80, 50:110].astype(float) - 127.5).max() < 10


def test_kinds_take_turns_and_every_photograph_is_used(photographs: list[Path]) -> None:
    pairs = warped_pairs(photographs, 42, list(KINDS), 160, seed=0)
    assert set(Counter(pair.kind for pair in pairs).values()) == {6}
    assert set(Counter(pair.group for pair in pairs).values()) == {14}
    assert len({pair.name for pair in pairs}) == 42


def test_a_photograph_gets_another_kind_the_second_time(photographs: list[Path]) -> None:
    pairs = warped_pairs(photographs, 6, ["noise", "blur", "scale"], 160, seed=0)
    by_photograph = Counter((pair.group, pair.kind) for pair in pairs)
    assert set(by_photograph.values()) == {1}


def test_a_pair_is_the_same_whatever_else_is_made(photographs: list[Path]) -> None:
    alone = warped_pairs(photographs, 5, ["strong"], 160, seed=3)[4].load()
    among = warped_pairs(photographs, 9, ["strong"], 160, seed=3)[4].load()
    np.testing.assert_array_equal(alone.current, among.current)
    other = warped_pairs(photographs, 5, ["strong"], 160, seed=4)[4].load()
    assert not np.allclose(alone.homography, other.homography)


def test_the_motions_of_seed_0_are_these(photographs: list[Path]) -> None:
    """Who changes how pairs are drawn changes the benchmark: figures no longer compare."""
    changes = warped_pairs(photographs, 2, ["strong"], 160, seed=0)[1].load().changes
    expected = {"rotation": 46.77, "tilt": 22.29, "axis": 288.33, "scale": 1.35}
    assert changes == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_keeps_its_promise(photographs: list[Path], kind: str) -> None:
    views = [pair.load() for pair in warped_pairs(photographs, 3, [kind], 160, seed=1)]
    motion, light = KINDS[kind]
    for view in views:
        assert view.reference.shape == view.current.shape == (120, 160)
        assert abs(view.changes["rotation"]) <= motion.rotation
        assert motion.tilt[0] <= view.changes["tilt"] <= motion.tilt[1]
        assert motion.scale[0] <= view.changes["scale"] <= motion.scale[1]
        difference = np.abs(view.current.astype(float) - render(view.reference, view.homography))
        assert (difference.mean() > 1) == (kind in ("illumination", "noise", "blur", "strong"))


def test_rotation_pairs_turn_every_photograph_by_every_angle(photographs: list[Path]) -> None:
    pairs = rotation_pairs(photographs, [90, 180], 160)
    assert [pair.kind for pair in pairs] == ["90", "180"] * 3
    turned = pairs[1].load()
    np.testing.assert_allclose(turned.current, turned.reference[::-1, ::-1], atol=6)


def test_pictures_of_folders_within_are_found(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    cv2.imwrite(str(tmp_path / "a/1.webp"), blob((5, 5), (40, 40)))
    (tmp_path / "readme.txt").touch()
    assert list_photographs(tmp_path) == [tmp_path / "a/1.webp"]


def test_only_listed_photographs_are_taken_in_their_order(photographs: list[Path]) -> None:
    names = photographs[0].parent / "list.txt"
    names.write_text("2.png\n\n# a comment\n0.png\n")
    assert list_photographs(names.parent, names) == [photographs[2], photographs[0]]


def test_missing_photographs_are_named(photographs: list[Path], tmp_path: Path) -> None:
    names = tmp_path / "list.txt"
    names.write_text("0.png\ngone.png\n")
    with pytest.raises(ValueError, match="1 of 2 pictures not in .*: gone.png"):
        list_photographs(photographs[0].parent, names)
    names.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="list.txt: not a text file"):
        list_photographs(photographs[0].parent, names)
    names.write_text("# nothing\n")
    with pytest.raises(ValueError, match="lists no picture"):
        list_photographs(photographs[0].parent, names)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no picture found"):
        list_photographs(tmp_path / "empty")


def test_a_picture_too_narrow_for_the_size_is_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "strip.png"), blob((5, 5), (40, 2000)))
    with pytest.raises(ValueError, match=r"strip.png: .*at least 16"):
        read_resized(tmp_path / "strip.png", 160)


def test_an_unknown_kind_is_refused(photographs: list[Path]) -> None:
    with pytest.raises(ValueError, match="unknown kind of pair 'sepia'; expected some of viewpoint"):
        warped_pairs(photographs, 3, ["blur", "sepia"], 160, seed=0)


def test_a_resized_picture_comes_with_its_map(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), blob((30, 20), (60, 80)))
    image, mapping = read_resized(tmp_path / "1.png", 200)
    assert image.shape == (150, 200)
    np.testing.assert_allclose(centroid(image), warp_points(np.array([[30.0, 20]]), mapping)[0], atol=0.1)


def test_zoomed_pairs_go_from_close_to_far_as_the_homography_says(tmp_path: Path) -> None:
    size = (240, 320)
    cv2.imwrite(str(tmp_path / "blob.png"), blob((165, 118), size, sigma=10))
    pairs = zoom_pairs([tmp_path / "blob.png"], 12, seed=0)
    assert {pair.kind for pair in pairs} == {"up to 2", "up to 3", "up to 4"}
    for pair in pairs:
        views = pair.load()
        assert views.reference.shape == views.current.shape == (120, 160)
        assert 1.5 <= views.changes["scale"] <= float(pair.kind[-1])
        mapped = warp_points(centroid(views.reference)[None], views.homography)[0]
        np.testing.assert_allclose(centroid(views.current), mapped, atol=0.5)
        area = [np.count_nonzero(picture > 160) for picture in (views.reference, views.current)]
        assert np.sqrt(area[0] / area[1]) == pytest.approx(views.changes["scale"], rel=0.15)
