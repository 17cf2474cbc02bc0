"""superpoint_ros/features/tracks.py, on made-up features and on rendered pictures."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from space_scenes import K, depth, render, yawed
from superpoint_ros.features import tracks as module
from superpoint_ros.features.extractor import Features
from superpoint_ros.features.matching import match
from superpoint_ros.features.tracks import Tracks

DIM = 64
SIZE = (240, 320)


def world(count=40):
    """Points with descriptors of their own: (xy, descriptors)."""
    rng = np.random.default_rng(2)
    descriptors = rng.normal(size=(count, DIM)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return rng.uniform((20, 20), (280, 200), (count, 2)).astype(np.float32), descriptors


def view(points, shift=(0.0, 0.0), order=None):
    """The features of some of the world's points, moved by `shift`."""
    xy, descriptors = world()
    rows = np.array(points, np.intp)
    if order is not None:
        rows = np.random.default_rng(order).permutation(rows)
    scores = np.linspace(1, 0.1, len(rows), dtype=np.float32)
    return rows, Features(xy[rows] + np.float32(shift), scores, descriptors[rows], SIZE)


def run(frames, max_gap=5, tracks=None):
    """{point: id} of each frame, tracked through mutual nearest neighbours."""
    tracks, seen, previous = tracks or Tracks(), [], None
    for rows, features in frames:
        matches = match(previous, features, min_similarity=0.9) if previous else np.empty((0, 2), np.int32)
        ids = tracks.advance(features, matches, max_gap)
        assert ids.dtype == np.int32
        assert len(set(ids.tolist())) == len(ids) and (ids >= 0).all()
        seen.append(dict(zip(rows.tolist(), ids.tolist(), strict=True)))
        previous = features
    return seen


def test_an_id_stays_with_its_point_whatever_its_row():
    frames = [view(range(40), (3 * i, i), order=i) for i in range(6)]
    seen = run(frames)
    assert all(ids == seen[0] for ids in seen)


def test_a_match_against_its_neighbours_motion_starts_a_track():
    # Mutual nearest neighbours always find a partner, though the point itself has gone.
    frames = [view(range(40)), view(range(40), (5, 0))]
    frames[1][1].xy[7] += (60, -50)
    frames[1][1].xy[21] += (0, 30)
    seen = run(frames)
    changed = [point for point in range(40) if seen[1][point] != seen[0][point]]
    assert changed == [7, 21]


def test_neighbours_that_move_differently_keep_their_ids():
    # Parallax: what is near moves several times as far as what is behind it.
    rows, first = view(range(40))
    _, second = view(range(40))
    second.xy[:] += np.where(first.xy[:, 1:] > 120, (25, 3), (6, 0)) * (1 + first.xy[:, 1:] / 400)
    seen = run([(rows, first), (rows, second)])
    assert sum(seen[0][point] == seen[1][point] for point in range(40)) >= 38


def test_coarse_keypoints_may_be_as_much_further_off():
    for scale, kept in ((1.0, False), (4.0, True)):
        rows, first = view(range(40))
        second = view(range(40), (5, 0))[1]
        second.xy[7] += (8, 0)
        frames = [(rows, replace(f, scales=np.full(40, scale, np.float32))) for f in (first, second)]
        seen = run(frames)
        assert (seen[0][7] == seen[1][7]) is kept


def turned(features, point, by):
    """The look of a point turned by an angle, in radians, towards another look."""
    look = features.descriptors[point]
    other = np.roll(look, 1) - np.dot(np.roll(look, 1), look) * look
    features.descriptors[point] = np.cos(by) * look + np.sin(by) * other / np.linalg.norm(other)
    return features


def test_a_point_that_turns_into_another_one_ends_and_one_whose_look_changes_slowly_goes_on():
    slowly = [(np.arange(40), turned(view(range(40))[1], 7, 0.2 * step)) for step in range(8)]
    seen = run(slowly)
    assert seen[-1][7] == seen[0][7]
    at_once = [(np.arange(40), turned(view(range(40))[1], 7, angle)) for angle in (0, 1.2)]
    tracks = Tracks()
    before = tracks.advance(at_once[0][1], np.empty((0, 2), np.int32), 5)
    same_rows = np.stack([np.arange(40)] * 2, axis=1).astype(np.int32)
    after = tracks.advance(at_once[1][1], same_rows, 5)
    assert np.flatnonzero(before != after).tolist() == [7]


def test_a_frame_that_fails_changes_nothing(monkeypatch):
    tracks = Tracks()
    (rows, first), (_, second) = view(range(30)), view(range(30), (4, 0))
    same_rows = np.stack([rows] * 2, axis=1).astype(np.int32)
    before = tracks.advance(first, same_rows[:0], 5)
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(module, "_revived", lambda *_: (_ for _ in ()).throw(MemoryError))
        tracks.advance(second, same_rows, 5)
    assert tracks.advance(second, same_rows, 5).tolist() == before.tolist()


def test_a_new_point_gets_an_id_that_was_never_used():
    seen = run([view(range(20)), view(range(25)), view(range(10, 25)), view(range(40))])
    assert not {seen[1][p] for p in range(20, 25)} & set(seen[0].values())
    assert not {seen[3][p] for p in range(25, 40)} & (set(seen[0].values()) | set(seen[1].values()))


@pytest.mark.parametrize(("missed", "max_gap", "same"), [(3, 3, True), (3, 2, False), (1, 0, False)])
def test_a_lost_point_keeps_its_id_within_the_gap(missed, max_gap, same):
    frames = [view(range(30)), *[view(range(20))] * missed, view(range(30))]
    seen = run(frames, max_gap)
    kept = [seen[-1][point] == seen[0][point] for point in range(20, 30)]
    assert all(kept) if same else not any(kept)


def test_all_points_come_back_after_a_blank_frame():
    seen = run([view(range(30)), view([]), view(range(30), order=1)])
    assert seen[2] == seen[0]


def test_lost_points_are_expected_where_the_others_have_moved():
    moving = [view(range(10), (25 * i, 0)) for i in range(1, 4)]
    seen = run([view(range(20)), *moving, view(range(20), (100, 0))])
    assert seen[-1] == {point: seen[0][point] for point in range(20)}


def test_a_lookalike_far_from_the_lost_point_starts_a_track():
    rows, features = view(range(20))
    far = view(range(20))[1]
    far.xy[15:] += (0, 100)
    seen = run([(rows, features), view(range(15)), (rows, far)])
    assert all(seen[2][point] != seen[0][point] for point in range(15, 20))


def test_after_a_reset_every_id_is_new():
    tracks = Tracks()
    before = run([view(range(30))], tracks=tracks)
    tracks.reset()
    after = run([view(range(30))], tracks=tracks)
    assert not set(before[0].values()) & set(after[0].values())


def test_remembered_tracks_are_limited(monkeypatch):
    monkeypatch.setattr(module, "DORMANT_LIMIT", 7)
    tracks = Tracks()
    run([view(range(40)), view(range(20)), view(range(5))], max_gap=1000, tracks=tracks)
    assert len(tracks._dormant.ids) == len(tracks._dormant.missed) == len(tracks._dormant.features) == 7


def test_ids_wrap_instead_of_becoming_negative():
    tracks = Tracks()
    tracks._next = 2**31 - 10
    (seen,) = run([view(range(30))], tracks=tracks)
    assert sorted(seen.values()) == [*range(20), *range(2**31 - 10, 2**31)]


def test_tracks_of_a_drive_past_boards_in_space_neither_jump_nor_lose_right_steps(extractor):
    """Where the point of a keypoint goes is known: under 0.1 % of the steps, and 2 % of the tracks, may jump."""
    poses = [(yawed(0.012 * n), np.array([-1.2 + 0.12 * n, 0.02 * n, 0.05 * n])) for n in range(16)]
    frames = [extractor(render(*pose)) for pose in poses]
    tracks, ids = Tracks(), []
    right = kept = 0
    lengths, jumps = Counter(), Counter()
    for number, found in enumerate(frames):
        before = frames[number - 1]
        matches = match(before, found) if number else np.empty((0, 2), np.int32)
        ids.append(tracks.advance(found, matches, 5))
        if not number:
            continue
        (rotation, place), (turned, moved) = poses[number - 1], poses[number]
        rays = np.column_stack([before.xy, np.ones(len(before))]) @ np.linalg.inv(K).T
        points = (rays * depth(rotation, place, before.xy)[:, None]) @ rotation.T + place
        seen = (points - moved) @ turned @ K.T
        truth = seen[:, :2] / seen[:, 2:]
        good = matches[np.linalg.norm(found.xy[matches[:, 1]] - truth[matches[:, 0]], axis=1) < 3]
        right += len(good)
        kept += int((ids[-2][good[:, 0]] == ids[-1][good[:, 1]]).sum())
        _, a, b = np.intersect1d(ids[-2], ids[-1], return_indices=True)
        lengths.update(ids[-1][b].tolist())
        jumps.update(ids[-1][b][np.linalg.norm(found.xy[b] - truth[a], axis=1) > 24].tolist())
    long = [track for track, steps in lengths.items() if steps >= 4]
    assert right > 3000 and len(long) > 200
    assert sum(jumps.values()) < 0.001 * sum(lengths.values())
    assert sum(track in jumps for track in long) < 0.02 * len(long)
    assert kept >= 0.97 * right
