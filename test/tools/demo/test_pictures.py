from __future__ import annotations

import cv2
import numpy as np
import pytest

from superpoint_ros.features.homography import HomographyStatus
from superpoint_ros.tools import draw
from superpoint_ros.tools.demo.overlay import BAR, TRAIL, WIDTH, Trails, compose, make_map
from superpoint_ros.tools.demo.overview import write_overview
from superpoint_ros.tools.demo.pictures import frame_rate, overlays
from superpoint_ros.tools.demo.results import FrameResult
from superpoint_ros.tools.demo.shots import Shot
from superpoint_ros.tools.demo.summary import Timing, judge_frame, summarise
from superpoint_ros.tools.demo.video import write_video

SIZE = (60, 80)
COUNT = 12


def shift(x):
    return np.array([[1, 0, x], [0, 1, 0], [0, 0, 1.0]])


def shots(skipped=()):
    """A frame a tenth of a second, in which three keypoints move right by two pixels each time."""
    first = np.array([[10, 10], [20, 30], [30, 50]], np.float32)
    made, reference = [], None
    for number in range(COUNT):
        stamp, result = 10**9 + number * 10**8, None
        if number not in skipped:
            result = FrameResult(
                stamp,
                features=True,
                size=SIZE,
                xy=first + (2 * number, 0),
                scores=np.array([0.9, 0.5, 0.1], np.float32),
                pairs=np.array([[0, 0], [1, 1], [2, 2]]) if made else np.empty((0, 2), np.int64),
                inlier=np.array([True, True, False]) if made else np.empty(0, bool),
                status=HomographyStatus.OK if made else HomographyStatus.NO_REFERENCE,
                reference=reference or 0,
                matrix=shift(2) if made else np.full((3, 3), np.nan),
                rmse=0.2,
            )
            reference = stamp
        made.append(Shot(stamp, np.full(SIZE, 100, np.uint8), result))
    return made


def figures(made, truth):
    sent = {shot.stamp: shot.stamp for shot in made}
    timing = Timing(COUNT, sent, {stamp: at + 5 * 10**7 for stamp, at in sent.items()})
    return [judge_frame(shot.result, timing, truth) for shot in made if shot.result], timing


def truth_of(made):
    return {shot.stamp: shift(2 * number) for number, shot in enumerate(made)}


def test_points_are_drawn_where_they_are_at_every_scale():
    for scale in (1, 2, 3.5, 0.5):
        canvas = draw.canvas_of(np.zeros((40, 60), np.uint8), scale)
        draw.draw_points(canvas, np.array([[30.0, 20.0]]), scale, draw.WHITE, 1)
        rows, columns = np.nonzero(canvas[..., 0])
        weight = canvas[rows, columns, 0]
        centre = np.average(columns, weights=weight), np.average(rows, weights=weight)
        np.testing.assert_allclose(centre, draw.enlarge(np.array([30, 20]), scale), atol=0.3)


def test_points_far_outside_or_infinite_do_no_harm():
    canvas = draw.canvas_of(np.zeros((40, 60), np.uint8), 1)
    far = np.array([[1e12, -1e12], [-1e9, 5.0]])
    draw.draw_points(canvas, far, 1, draw.WHITE)
    draw.draw_lines(canvas, far, far[::-1], draw.WHITE)
    draw.draw_polygon(canvas, np.array([[0, 0], [np.inf, 0], [np.nan, 5.0]]), 1, draw.WHITE)
    assert not canvas.any() or canvas.shape == (40, 60, 3)


def test_trails_follow_inliers_and_forget_what_is_lost():
    trails = Trails()
    made = shots(skipped=(6,))
    ways = {}
    for number, shot in enumerate(made):
        if shot.result is not None:
            ways[number] = trails.advance(shot.result)
    assert ways[0] == []
    assert [len(way) for way in ways[1]] == [2, 2], "two of the three matches are inliers"
    np.testing.assert_array_equal(ways[2][0], [[10, 10], [12, 10], [14, 10]])
    assert {len(way) for way in ways[COUNT - 1]} == {TRAIL}
    broken = FrameResult(10**12, True, SIZE, xy=made[0].result.xy, reference=5)
    assert trails.advance(broken) == []


def test_an_overlay_shows_the_frame_its_figures_and_the_map():
    made = shots()
    truth = truth_of(made)
    judged, _ = figures(made, truth)
    plane = np.full((100, 400, 3), 200, np.uint8)
    place = make_map(plane, truth, truth)
    height = round(SIZE[0] * WIDTH / SIZE[1])
    alone = compose(made[3], judged[3], [], None, 3)
    assert alone.shape == (height + BAR, WIDTH, 3)
    both = compose(made[3], judged[3], [], place, 3)
    assert both.shape == (height + BAR + round(100 * WIDTH / 400), WIDTH, 3)
    np.testing.assert_array_equal(both[: len(alone)], alone)
    assert (both[len(alone) :] != place.picture).any(), "the view's outline is on the map"
    other = compose(made[9], judged[9], [], place, 9)
    assert (both[len(alone) :] != other[len(alone) :]).any()


def test_every_frame_gets_an_overlay_even_one_that_was_skipped():
    made = shots(skipped=(4, 5))
    judged, _ = figures(made, None)
    pictures = list(overlays(made, judged, None))
    assert len(pictures) == COUNT and len({picture.shape for picture in pictures}) == 1
    orange = (pictures[4][-BAR:] == draw.ORANGE).all(axis=2)
    assert orange.any() and not (pictures[3][-BAR:] == draw.ORANGE).all(axis=2).any()


def test_the_video_decodes_to_the_frames_written(tmp_path):
    made = shots()
    judged, _ = figures(made, None)
    pictures = list(overlays(made, judged, None))
    assert write_video(tmp_path / "video.mp4", pictures, 10) == COUNT
    capture = cv2.VideoCapture(str(tmp_path / "video.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    for picture in pictures:
        read, decoded = capture.read()
        assert read and decoded.shape == picture.shape
        assert np.abs(decoded.astype(int) - picture).mean() < 6
    assert not capture.read()[0]


def test_pictures_of_odd_or_changing_size_fit_into_one_video(tmp_path):
    pictures = [np.full(size, 90, np.uint8) for size in ((61, 81, 3), (61, 81, 3), (30, 40, 3))]
    assert write_video(tmp_path / "video.mp4", pictures, 5) == 3
    capture = cv2.VideoCapture(str(tmp_path / "video.mp4"))
    assert capture.read()[1].shape == (60, 80, 3)


def test_a_video_that_cannot_be_written_says_so(tmp_path):
    picture = np.zeros((60, 80, 3), np.uint8)
    with pytest.raises(OSError, match="can write none of vp09"):
        write_video(tmp_path / "no" / "such" / "video.mp4", [picture], 5)


@pytest.mark.parametrize("with_truth", [True, False])
@pytest.mark.parametrize("skipped", [(), range(COUNT), range(1, COUNT)])
def test_the_page_is_drawn_whatever_came_back(tmp_path, with_truth, skipped):
    made = shots(skipped)
    truth = truth_of(made) if with_truth else None
    judged, timing = figures(made, truth)
    pair = (made[5], made[6]) if not skipped else None
    place = make_map(np.full((100, 400, 3), 200, np.uint8), truth, truth) if truth else None
    summary = summarise(judged, timing, "cpu")
    page = tmp_path / "overview.png"
    write_overview(page, "a title", True, summary, judged, pair, place)
    assert min(cv2.imread(str(page)).shape[:2]) > 1000


def test_the_frame_rate_follows_the_recording():
    assert frame_rate([0, 10**8, 2 * 10**8]) == pytest.approx(10)
    assert frame_rate([0, 10**10]) == 1
    assert frame_rate([0]) == frame_rate([5, 5]) == frame_rate([]) == 10
