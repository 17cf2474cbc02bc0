"""superpoint_ros/frontend/track_points.py"""

import numpy as np

from superpoint_ros.frontend import track_points
from superpoint_ros.frontend.track_points import PointTracks

SECOND = 10**9


def slow(frames):
    """The definition, point by point: (stamp, {track: place}) in; of each frame {our id: (track, velocity)}."""
    next_id, last_stamp, last, answers = 0, 0, {}, []
    for stamp, places in frames:
        now, answer = {}, {}
        for track, place in places.items():
            if track in last:
                own, before = last[track]
                answer[own] = (track, (place - before) / ((stamp - last_stamp) / SECOND))
                now[track] = (own, place)
        for track, place in places.items():
            if track not in last:
                now[track] = (next_id, place)
                next_id += 1
        last, last_stamp = now, stamp
        answers.append(answer)
    return answers


def test_points_have_the_velocity_and_ids_of_the_definition():
    random = np.random.default_rng(2)
    frames = []
    for number in range(1, 12):
        tracks = random.permutation(30)[: random.integers(0, 30)]
        frames.append((number * SECOND // 7, {int(track): random.uniform(-1, 1, 2) for track in tracks}))
    points = PointTracks()
    for (stamp, places), expected in zip(frames, slow(frames), strict=True):
        tracks = np.array(list(places), np.int32)
        where = np.array(list(places.values())).reshape(-1, 2)
        found = points.advance(stamp, tracks, where.astype(np.float32) * 100, where)
        assert set(found.ids.tolist()) == expected.keys()
        for own, pixel, place, velocity in zip(
            found.ids.tolist(), found.pixels, found.normalised, found.velocity, strict=True
        ):
            track, speed = expected[own]
            np.testing.assert_allclose(velocity, speed)
            np.testing.assert_array_equal(place, places[track])
            np.testing.assert_allclose(pixel, places[track] * 100, rtol=1e-6)


def at(points, seconds, *tracks):
    places = np.arange(2.0 * len(tracks)).reshape(-1, 2)
    return points.advance(int(seconds * SECOND), np.array(tracks, np.int32), places.astype(np.float32), places)


def test_a_track_that_was_lost_in_between_is_another_point():
    points = PointTracks()
    at(points, 1, 5, 6)
    first = at(points, 2, 5, 6).ids
    at(points, 3, 6)
    assert len(at(points, 4, 5, 6).ids) == 1  # 5 is back, and new
    again = at(points, 5, 5, 6).ids
    assert set(again) & set(first) == {first[1]} and len(again) == 2


def test_stamps_that_do_not_go_on_begin_anew():
    points = PointTracks()
    at(points, 9, 1, 2)
    assert len(at(points, 9, 1, 2).ids) == 0
    assert len(at(points, 3, 1, 2).ids) == 0
    assert len(at(points, 4, 1, 2).ids) == 2


def test_points_that_a_lens_cannot_have_seen_are_left_out():
    points = PointTracks()
    places = np.array([[0.0, 1.0], [np.nan, np.nan]])
    for stamp in (1, 2):
        found = points.advance(stamp * SECOND, np.array([3, 4], np.int32), places.astype(np.float32), places)
    assert len(found.ids) == 1 and np.isfinite(found.velocity).all()


def test_a_point_that_lives_keeps_its_id_to_itself_when_the_ids_begin_anew(monkeypatch):
    monkeypatch.setattr(track_points, "IDS", 8)
    points, where = PointTracks(), np.zeros((3, 2))
    for number in range(1, 12):
        tracks = np.array([0, 1000 + number, 2000 + number // 2], np.int32)
        points.advance(number * SECOND, tracks, where.astype(np.float32), where)
        assert len(set(points._ids.tolist())) == 3 and points._ids[0] == 0


def test_ids_stay_whole_numbers_in_float32(monkeypatch):
    assert np.float32(track_points.IDS - 1) != np.float32(track_points.IDS)
    monkeypatch.setattr(track_points, "IDS", 4)
    points, seen = PointTracks(), []
    for frame in range(1, 6):
        at(points, 2 * frame, frame)
        seen += at(points, 2 * frame + 1, frame).ids.tolist()
    assert seen == [0, 1, 2, 3, 0]
