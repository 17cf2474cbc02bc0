from __future__ import annotations

import numpy as np
import pytest

from bag_samples import SECOND, image_bytes, message_bytes, time_of
from superpoint_ros.bags.content import IMAGE, Topic
from superpoint_ros.bags.definitions import typestore
from superpoint_ros.bags.writer import BagWriter, offered_qos
from superpoint_ros.features.homography import HomographyStatus
from superpoint_ros.tools.demo.results import (
    DIAGNOSTICS,
    FEATURES,
    HOMOGRAPHY,
    MATCHES,
    MEMORY,
    OUTPUTS,
    read_diagnostics,
    read_results,
)
from superpoint_ros.tools.demo.shots import Source, read_shots

EVERY = range(100)


def features(stamp, keypoints=3):
    xy = np.arange(keypoints, dtype=np.float32) + stamp
    values = {"x": xy, "y": xy + 0.5, "scores": np.full(keypoints, 0.5, np.float32)}
    size = {"height": 48, "width": 64}
    return FEATURES, message_bytes(OUTPUTS[FEATURES], stamp, **values, **size, weights_id="t@0")


def matches(stamp, reference):
    rows = np.array([0, 1], np.uint32)
    return MATCHES, message_bytes(
        OUTPUTS[MATCHES],
        stamp,
        reference_stamp=time_of(reference),
        reference=rows,
        current=np.array([1, 0], np.uint32),
        similarity=np.ones(2, np.float32),
        inlier=np.array([1, 0], np.uint8),
    )


def homography(stamp, reference=0, status=HomographyStatus.OK):
    matrix = np.full(9, np.nan) if status else np.eye(3).reshape(9) + stamp
    return HOMOGRAPHY, message_bytes(
        OUTPUTS[HOMOGRAPHY],
        stamp,
        reference_stamp=time_of(reference),
        matrix=matrix,
        status=int(status),
        rmse=0.5,
    )


@pytest.fixture
def record(tmp_path):
    """record([(topic, bytes), …]): a bag as the recorder writes it."""

    def write(messages):
        with BagWriter(tmp_path / "record") as writer:
            for topic, kind in OUTPUTS.items():
                writer.add_topic(topic, kind, offered_qos(reliable=True, depth=5))
            for time, (topic, data) in enumerate(messages):
                writer.write(topic, time, data)
        return tmp_path / "record"

    return write


def test_what_belongs_to_one_frame_is_put_together(record):
    path = record([features(1), homography(1, status=HomographyStatus.NO_REFERENCE),
                   features(2), matches(2, 1), homography(2, 1)])  # fmt: skip
    first, second = read_results(path, EVERY)
    assert (first.stamp, first.status, first.ok) == (1, HomographyStatus.NO_REFERENCE, False)
    assert first.size == (48, 64) and len(first.pairs) == 0 and np.isnan(first.matrix).all()
    assert (second.stamp, second.reference, second.ok) == (2, 1, True)
    assert second.xy.tolist() == [[2, 2.5], [3, 3.5], [4, 4.5]]
    assert second.pairs.tolist() == [[0, 1], [1, 0]] and second.inlier.tolist() == [True, False]
    np.testing.assert_array_equal(second.matrix, np.eye(3) + 2)


def test_topics_may_overtake_each_other(record):
    path = record([homography(1), features(2), features(1), matches(2, 1), matches(1, 0),
                   homography(2, 1)])  # fmt: skip
    results = list(read_results(path, EVERY))
    assert [(each.stamp, each.features, each.ok) for each in results] == [
        (1, True, True),
        (2, True, True),
    ]


def test_a_frame_that_stays_incomplete_does_not_hold_up_the_others(record):
    messages = [features(0)]
    for stamp in range(1, 3 * MEMORY):
        messages += [features(stamp), matches(stamp, stamp - 1), homography(stamp, stamp - 1)]
    results = read_results(record(messages), EVERY)
    assert [each.stamp for each in results] == list(range(3 * MEMORY))


def test_frames_with_equal_stamps_stay_apart(record):
    path = record([features(0, 1), homography(0), features(0, 2), homography(0)])
    assert [len(each.xy) for each in read_results(path, EVERY)] == [1, 2]


def test_frames_that_were_not_played_are_left_out(record):
    path = record([features(50), homography(50), features(1), homography(1)])
    assert [each.stamp for each in read_results(path, {1, 2})] == [1]


def test_the_last_diagnostics_of_the_node_count(record):
    store = typestore()
    status, pair = (store.types[f"diagnostic_msgs/msg/{name}"] for name in ("DiagnosticStatus", "KeyValue"))

    def account(name, dropped):
        values = [pair("frames_dropped", dropped)]
        return DIAGNOSTICS, message_bytes(OUTPUTS[DIAGNOSTICS], 1, status=[status(0, name, "", "", values)])

    path = record([account("/superpoint: camera", "1"), account("/superpoint: camera", "2"),
                   account("/other: thing", "9")])  # fmt: skip
    assert read_diagnostics(path) == {"frames_dropped": "2"}


def test_a_run_without_diagnostics_has_an_empty_account(record):
    assert read_diagnostics(record([features(1)])) == {}


def test_shots_are_images_with_their_results(record, make_images):
    stamps = [SECOND, SECOND * 11 // 10, SECOND * 12 // 10]
    path = record([features(stamps[0]), homography(stamps[0]),
                   features(stamps[2]), matches(stamps[2], stamps[0]), homography(stamps[2])])  # fmt: skip
    source = Source(make_images(count=3), Topic("/camera/image_raw", IMAGE, 3))
    shots = list(read_shots(source, path, stamps))
    assert [shot.stamp for shot in shots] == stamps
    assert [shot.result is not None for shot in shots] == [True, False, True]
    assert shots[2].result.stamp == stamps[2]
    assert all(shot.picture.shape == (48, 64) for shot in shots)
    assert len(list(read_shots(Source(source.bag, source.topic, stamps[1]), path, stamps))) == 1


def test_shots_of_sixteen_bit_images_have_contrast(record, make_bag):
    deep = 7000 + np.random.default_rng(0).integers(0, 600, (3, 48, 64)).astype(np.uint16)
    images = [("/thermal", SECOND + number, image_bytes(SECOND + number, each)) for number, each in enumerate(deep)]
    source = Source(make_bag("thermal", {"/thermal": IMAGE}, images), Topic("/thermal", IMAGE, 3))
    shots = list(read_shots(source, record([features(SECOND)]), [SECOND]))
    assert len(shots) == 3 and all(np.ptp(shot.picture) > 180 for shot in shots)
