"""`superpoint extract` on small bags, against the package's own functions called one by one."""

from __future__ import annotations

import itertools
import re
import sqlite3
import struct
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin

from bag_samples import SECOND, image_bytes, message_bytes, write_mcap
from robot import photograph, shifted
from superpoint_ros.bags.content import COMPRESSED_IMAGE, IMAGE, header_stamp
from superpoint_ros.bags.reader import BagReader
from superpoint_ros.bags.writer import BagWriter
from superpoint_ros.features.extractor import Extractor
from superpoint_ros.features.homography import estimate_homography
from superpoint_ros.features.matching import match
from superpoint_ros.features.refinement import refine_matches
from superpoint_ros.tools.extract import input as inputs
from superpoint_ros.tools.extract.camera_infos import CAMERA_INFO
from superpoint_ros.tools.extract.command import extract_command

LEFT, RIGHT = "/stereo/left/image_raw", "/stereo/right/image_raw"
SIZE = (96, 128)
K, D = np.array([[100.0, 0, 64], [0, 100, 48], [0, 0, 1]]), np.array([-0.2, 0.05, 0, 0, 0])


def pictures(count, offset=0):
    """A camera that moves along a mosaic."""
    wide = photograph((160, 400))
    return [shifted(wide, -4 * number - offset, -2 * number)[: SIZE[0], : SIZE[1]].copy() for number in range(count)]


def images(count=6, topic=LEFT, offset=0, compressed=False, delay=0):
    """(topic, time of recording, bytes); stamps are 1 ms before that."""
    times = [SECOND + number * SECOND // 10 + delay for number in range(count)]
    return [
        (topic, time, image_bytes(time - 1_000_000, picture, compressed))
        for time, picture in zip(times, pictures(count, offset), strict=True)
    ]


def camera_info_bytes(stamp, x_offset=0):
    """CDR of a CameraInfo, of K and D, for a region of interest that begins at the column."""
    roi = SimpleNamespace(x_offset=x_offset, y_offset=0, height=SIZE[0], width=SIZE[1], do_rectify=False)
    p = np.column_stack([K, np.zeros(3)]).ravel()
    return message_bytes(
        CAMERA_INFO, stamp, height=480, width=640, distortion_model="plumb_bob", d=D, k=K.ravel(), r=np.eye(3).ravel(),
        p=p, roi=roi,
    )  # fmt: skip


@pytest.fixture
def bag(make_bag):
    return make_bag("drive", {LEFT: IMAGE}, images())


@pytest.fixture
def run(tiny_weights):
    """run(bag, ..., out, options): exit status and all that it says."""

    def call(*arguments, status=0):
        options = ["--weights", tiny_weights, "--device", "cpu", "--engine", "torch", "--max-keypoints", "60"]
        result = CliRunner().invoke(extract_command, [*map(str, arguments), *options])
        assert result.exit_code == status, result.output
        return result.output

    return call


def test_what_of_the_nodes_parameters_has_no_effect_in_a_bag_is_said(bag, tmp_path, run):
    params = tmp_path / "rig.yaml"
    values = {"cameras": ["left", "right"], "tracks": True, "track_cloud": "vins_mono", "right.resize": 64}
    params.write_text(yaml.safe_dump({"superpoint": {"ros__parameters": values}}))
    said = run(bag, tmp_path / "out", "--topic", f"left={LEFT}", "--params", params)
    assert "Parameter track_cloud is for the node: there is no ~/track_cloud in a bag" in said
    assert "parameter 'right.resize' is for a camera 'right', but there are ['left']" in said


def outputs(path):
    """topic -> [(time, message)], read by rosbags with nothing but what is in the bag."""
    found = {}
    with AnyReader([path]) as reader:
        for connection, time, data in reader.messages():
            found.setdefault(connection.topic, []).append((time, reader.deserialize(data, connection.msgtype)))
    return found


def raw(path):
    with BagReader(path) as reader:
        return [(message.topic.name, message.time, message.data) for message in reader.messages()]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_everything_is_as_the_functions_of_the_package_have_it(make_bag, run, tmp_path, tiny_weights, plugin, storage):
    sent = images()
    run(make_bag("drive", {LEFT: IMAGE}, sent, plugin), tmp_path / "out", "--storage", storage)
    found = outputs(tmp_path / "out")
    extractor = Extractor(tiny_weights, "cpu", "torch", max_keypoints=60, subpixel=True)
    expected = [extractor(picture) for picture in pictures(6)]
    assert set(found) == {f"/superpoint/{name}" for name in ("features", "matches", "homography")}
    assert [time for time, _ in found["/superpoint/features"]] == [time for _, time, _ in sent]
    assert [time for time, _ in found["/superpoint/matches"]] == [time for _, time, _ in sent][1:]
    for (_, message), features, (_, _, data) in zip(found["/superpoint/features"], expected, sent, strict=True):
        stamp = message.header.stamp
        assert (stamp.sec * SECOND + stamp.nanosec, message.header.frame_id) == (header_stamp(data), "camera")
        assert (message.height, message.width, message.weights_id) == (*SIZE, extractor.weights_id)
        np.testing.assert_array_equal(np.stack([message.x, message.y], axis=1), features.xy)
        np.testing.assert_array_equal(message.scores, features.scores)
        np.testing.assert_array_equal(
            message.descriptors.view("<f2").reshape(60, -1), features.descriptors.astype("<f2")
        )
    for number in range(1, 6):
        pairs = match(expected[number - 1], expected[number], min_similarity=0.6)
        before, now, seen = expected[number - 1], expected[number], tuple(pictures(6)[number - 1 : number + 1])
        homography = estimate_homography(before, now, pairs, 3.0, seen)
        matches, estimate = found["/superpoint/matches"][number - 1][1], found["/superpoint/homography"][number][1]
        np.testing.assert_array_equal(np.stack([matches.reference, matches.current], axis=1), pairs)
        places, _ = refine_matches(before, now, pairs, seen)
        np.testing.assert_array_equal(np.stack([matches.x, matches.y], axis=1), places)
        np.testing.assert_array_equal(estimate.matrix, homography.matrix.reshape(9))
        assert estimate.refined == homography.refined
        assert (estimate.status, estimate.matches) == (homography.status, len(pairs))
        assert estimate.reference_stamp == found["/superpoint/features"][number - 1][1].header.stamp
    assert found["/superpoint/homography"][0][1].status == estimate.NO_REFERENCE


def test_a_matching_that_fails_costs_no_features(bag, run, tmp_path, monkeypatch):
    from superpoint_ros.frontend.tracker import Tracker

    advance = Tracker.advance

    def failing(self, stamp, *arguments, **options):
        if stamp == SECOND + 2 * SECOND // 10 - 1_000_000:
            raise MemoryError("no room for the matches")
        return advance(self, stamp, *arguments, **options)

    monkeypatch.setattr(Tracker, "advance", failing)
    said = run(bag, tmp_path / "out", status=1)
    found = outputs(tmp_path / "out")
    assert (len(found["/superpoint/features"]), len(found["/superpoint/matches"])) == (6, 3)
    assert f"2 of 6 images are without matches ({LEFT}: MemoryError: no room for the matches)" in said


def test_compressed_images_give_what_raw_ones_give(make_bag, run, tmp_path):
    topic = "/camera/image_raw/compressed"
    run(make_bag("drive", {LEFT: IMAGE}, images()), tmp_path / "raw")
    run(make_bag("small", {topic: COMPRESSED_IMAGE}, images(topic=topic, compressed=True)), tmp_path / "packed")
    assert raw(tmp_path / "raw") == raw(tmp_path / "packed")


def test_several_cameras_are_called_after_their_topics_or_as_asked(make_bag, run, tmp_path):
    both = sorted([*images(), *images(topic=RIGHT, offset=9, delay=3_000_000)], key=lambda each: each[1])
    path = make_bag("stereo", {LEFT: IMAGE, RIGHT: IMAGE}, both)
    run(path, tmp_path / "a", "--topic", LEFT, "--topic", RIGHT)
    found = outputs(tmp_path / "a")
    assert len(found) == 6
    assert len(found["/superpoint/stereo/right/homography"]) == 6
    run(path, tmp_path / "alone", "--topic", RIGHT)
    alone = outputs(tmp_path / "alone")["/superpoint/features"]
    np.testing.assert_array_equal(
        [message.x for _, message in alone], [message.x for _, message in found["/superpoint/stereo/right/features"]]
    )
    run(path, tmp_path / "b", "--topic", f"one={LEFT}", "--topic", f"two={RIGHT}")
    assert "/superpoint/two/matches" in outputs(tmp_path / "b")
    run(path, tmp_path / "c", "--set", "cameras=[l, r]", "--set", f"image_topics=[{LEFT}, {RIGHT}]")
    assert "/superpoint/l/matches" in outputs(tmp_path / "c")
    assert "cameras need different names" in run(
        path, tmp_path / "d", "--topic", LEFT, "--topic", f"x={RIGHT}", status=1
    )
    said = run(path, tmp_path / "d", "--topic", LEFT, "--topic", RIGHT, "--set", "frame_ids=[lens]", status=1)
    assert "parameter 'frame_ids' is for 1 cameras, but 2 are extracted" in said
    assert f"which topic? its image topics are: {LEFT}" in run(path, tmp_path / "e", status=1)
    assert "there is no topic /front" in run(path, tmp_path / "e", "--topic", "/front", status=1)
    assert not (tmp_path / "e").exists()


def test_the_nodes_parameter_file_is_taken(bag, run, tmp_path):
    file = tmp_path / "robot.yaml"
    file.write_text(
        "/**:\n  ros__parameters:\n    use_sim_time: true\n    tracks: true\n"
        "front:\n  superpoint:\n    ros__parameters:\n      descriptor_type: uint8\n      match_ratio: 1\n"
        "      frame_ids: [lens]\n      qos_overrides: {/image: {subscription: {depth: 3}}}\n"
        "other_node:\n  ros__parameters:\n    whatever: 3\n"
    )
    run(bag, tmp_path / "out", "--params", file, "--set", "publish_matches=false", "--set", "nms_radius=6")
    found = outputs(tmp_path / "out")
    assert sorted(found) == ["/superpoint/features", "/superpoint/homography"]
    for _, message in found["/superpoint/features"]:
        assert message.descriptor_type == message.UINT8
        assert message.header.frame_id == "lens"
        assert len(message.track_ids) == len(message.x)


def test_scales_are_taken_and_written_with_every_keypoint(bag, run, tmp_path):
    run(bag, tmp_path / "out", "--topic", LEFT, "--scales", "1.0, 0.5")
    for _, message in outputs(tmp_path / "out")["/superpoint/features"]:
        assert set(message.scale) == {1.0, 2.0} and len(message.scale) == len(message.x)
    assert "parameter 'scales' must be" in run(bag, tmp_path / "other", "--scales", "half", status=1)


@pytest.mark.parametrize(
    "option, sentence",
    [
        ("--set=nms_radus=3", "parameter 'nms_radus' is unknown (did you mean 'nms_radius'?)"),
        ("--set=nms_radius=900", "parameter 'nms_radius' must lie in 0 to 64, got 900"),
        ("--set=nms_radius=wide", "parameter 'nms_radius' must be int, got 'wide'"),
        ("--set=reference=first", "parameter 'reference' must be one of previous, keyframe"),
        ("--set=cameras=left", "parameter 'cameras' must be a list of str, got 'left'"),
        ("--set=tracks", "--set needs NAME=VALUE"),
        ("--params=/nowhere.yaml", "/nowhere.yaml"),
        ("--set=mask_files=[/nowhere.png]", "mask /nowhere.png is not a readable picture"),
    ],
)
def test_what_is_not_allowed_is_refused_with_a_sentence(bag, run, tmp_path, option, sentence):
    assert sentence in run(bag, tmp_path / "out", option, status=2 if "needs" in sentence else 1)
    assert not (tmp_path / "out").exists()


def test_images_that_cannot_be_decoded_are_named_and_the_others_extracted(make_bag, run, tmp_path):
    sent = images()
    sent[2] = (LEFT, sent[2][1], b"\x00\x01\x00\x00abc")
    sent[4] = (LEFT, sent[4][1], image_bytes(5, pictures(1)[0])[:-100])
    said = run(make_bag("drive", {LEFT: IMAGE}, sent), tmp_path / "out", status=1)
    assert f"2 of 6 images are unreadable ({LEFT}: a message on {LEFT}" in said
    assert len(outputs(tmp_path / "out")["/superpoint/features"]) == 4


def test_one_odd_time_costs_one_image_and_no_other_bag(make_bag, run, tmp_path):
    odd = {}
    for name, time, plugin in (("before", -5, StoragePlugin.SQLITE3), ("after", (1 << 64) - 1, StoragePlugin.MCAP)):
        odd[name] = make_bag(name, {LEFT: IMAGE}, images(), plugin)
        if plugin == StoragePlugin.SQLITE3:
            with sqlite3.connect(odd[name] / "before.db3") as connection:
                connection.execute("UPDATE messages SET timestamp = ? WHERE id = 3", [time])
            connection.close()
        else:
            sent = images()
            sent[3] = (LEFT, time, sent[3][2])
            write_mcap(odd[name] / "after.mcap", sent)
    good = make_bag("good", {LEFT: IMAGE}, images())
    for storage in ("mcap", "sqlite3"):
        out = tmp_path / storage
        said = run(*odd.values(), good, out, "--storage", storage, status=1)
        assert said.count(f"1 of 6 images are lost ({LEFT}: recorded at ") == 2, said
        assert [len(outputs(out / name)["/superpoint/features"]) for name in (*odd, "good")] == [5, 5, 6]


def test_a_stamp_at_the_end_of_int32_costs_nothing(make_bag, run, tmp_path):
    sent = images()
    for number in (2, 3):
        data = bytearray(sent[number][2])
        struct.pack_into("<iI", data, 4, (1 << 31) - 1, 1_500_000_000 + number)
        sent[number] = (*sent[number][:2], bytes(data))
    run(make_bag("late", {LEFT: IMAGE}, sent), tmp_path / "out", "--set", "tracks=true")
    found = outputs(tmp_path / "out")
    assert len(found["/superpoint/features"]) == len(found["/superpoint/homography"]) == 6
    reference = found["/superpoint/homography"][3][1].reference_stamp
    assert (reference.sec, reference.nanosec) == ((1 << 31) - 1, 1_500_000_002)


@pytest.mark.parametrize("error", [TypeError("odd"), MemoryError(), RuntimeError("odd")])
def test_an_image_that_fails_in_an_unexpected_way_costs_one_image(bag, run, tmp_path, monkeypatch, error):
    count, grey_picture = itertools.count(), inputs.grey_picture

    def fail(*arguments):
        if next(count) == 2:
            raise error
        return grey_picture(*arguments)

    monkeypatch.setattr(inputs, "grey_picture", fail)
    assert "1 of 6 images are unreadable" in run(bag, tmp_path / "out", status=1)
    assert len(outputs(tmp_path / "out")["/superpoint/features"]) == 5


def test_matching_that_fails_costs_no_features(bag, run, tmp_path, monkeypatch):
    def fail(*arguments, **keywords):
        raise IndexError("odd")

    monkeypatch.setattr("superpoint_ros.frontend.tracker.match", fail)
    said = run(bag, tmp_path / "out", status=1)
    assert f"5 of 6 images are without matches ({LEFT}: IndexError: odd)" in said
    assert len(outputs(tmp_path / "out")["/superpoint/features"]) == 6


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), sqlite3.OperationalError("disk is full")])
def test_a_full_disk_costs_no_other_bag(make_bag, run, tmp_path, monkeypatch, error):
    bags = [make_bag(f"drive{number}", {LEFT: IMAGE}, images()) for number in range(2)]
    write, count = BagWriter.write, itertools.count()

    def fail(self, *arguments):
        if self.path.name == "drive0" and next(count) > 6:
            raise error
        write(self, *arguments)

    monkeypatch.setattr(BagWriter, "write", fail)
    said = run(*bags, tmp_path / "out", status=1)
    assert re.search(r"out/drive0: .*(No space left on device|disk is full); --resume continues it", said)
    assert len(outputs(tmp_path / "out" / "drive1")["/superpoint/features"]) == 6
    assert not yaml.safe_load((tmp_path / "out" / "drive0" / "superpoint_extract.yaml").read_text())["complete"]


def test_rectification_that_is_asked_for_and_impossible_is_a_failure_and_costs_no_image(make_bag, run, tmp_path):
    info = "/stereo/left/camera_info"
    good = {
        "height": SIZE[0],
        "width": SIZE[1],
        "distortion_model": "plumb_bob",
        "d": np.zeros(5),
        "r": np.eye(3).ravel(),
    }
    k, singular = np.array([100.0, 0, 64, 0, 100, 48, 0, 0, 1]), np.array([100.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0])
    for name, messages, words in (
        ("none", [], f"there is no CameraInfo on {info}"),
        ("singular", [(info, 5, message_bytes(CAMERA_INFO, 5, k=k, p=singular, **good))], "P of its CameraInfo"),
        ("broken", [(info, 5, b"\0\1\0\0odd")], f"a message on {info} at 5 ns is not a"),
    ):
        bag = make_bag(name, {LEFT: IMAGE, info: CAMERA_INFO} if messages else {LEFT: IMAGE}, [*messages, *images()])
        assert words in run(bag, tmp_path / f"out_{name}", "--set", "rectify=true", status=1)
        assert len(outputs(tmp_path / f"out_{name}")["/superpoint/features"]) == 6


@pytest.mark.parametrize(("value", "reason"), [(2, "the image is black"), (255, "white"), (90, "one value, 90")])
def test_images_without_keypoints_are_told_with_the_likely_reason(make_bag, run, tmp_path, value, reason):
    sent = images()
    for number in (1, 2):
        sent[number] = (*sent[number][:2], image_bytes(sent[number][1], np.full(SIZE, value, np.uint8)))
    said = run(make_bag("dark", {LEFT: IMAGE}, sent), tmp_path / "out")
    assert f"{LEFT}: 2 of 6 images have no keypoints; most likely " in said and reason in said


def test_homographies_that_fail_for_long_are_told(make_bag, run, tmp_path):
    noise = np.random.default_rng(0)
    sent = [(LEFT, time, image_bytes(time, noise.integers(0, 256, SIZE).astype(np.uint8))) for time in range(14)]
    said = run(make_bag("noise", {LEFT: IMAGE}, sent), tmp_path / "out")
    assert "13 of 13 homographies failed, mostly " in said


def test_a_bag_cut_off_is_extracted_as_far_as_it_goes(bag, run, tmp_path):
    (file,) = bag.glob("*.mcap")
    file.write_bytes(file.read_bytes()[:-40_000])
    (bag / "metadata.yaml").unlink()
    said = run(bag, tmp_path / "out", status=1)
    found = outputs(tmp_path / "out")
    assert len(found["/superpoint/features"]) == len(found["/superpoint/homography"]) == 2
    assert "2 messages could be read, but not everything: drive.mcap: cut off at byte" in said
    assert yaml.safe_load((tmp_path / "out" / "superpoint_extract.yaml").read_text())["complete"]


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_metadata_that_claims_an_empty_bag_is_not_believed(make_bag, run, tmp_path, plugin):
    bag = make_bag("drive", {LEFT: IMAGE}, images(), plugin)
    content = yaml.safe_load((bag / "metadata.yaml").read_text())
    told = content["rosbag2_bagfile_information"]
    told["message_count"], told["topics_with_message_count"] = 0, []
    (bag / "metadata.yaml").write_text(yaml.safe_dump(content))
    run(bag, tmp_path / "out")
    assert len(outputs(tmp_path / "out")["/superpoint/features"]) == 6


def test_a_topic_without_images_is_a_failure(make_bag, run, tmp_path):
    bag = make_bag("drive", {LEFT: IMAGE, RIGHT: IMAGE}, images())
    said = run(bag, tmp_path / "out", "--topic", LEFT, "--topic", RIGHT, status=1)
    assert f"there are no images on {RIGHT}" in said
    assert "no such bag" in run(tmp_path / "nothing", tmp_path / "out2", status=1)


def test_masks_and_calibrations_of_the_bag_are_honoured(make_bag, run, tmp_path):
    info, masks = "/stereo/left/camera_info", "/mask"
    calibrated = camera_info_bytes(SECOND)
    mask = np.zeros(SIZE, np.uint8)
    mask[:, 64:] = 255
    topics = {LEFT: IMAGE, info: "sensor_msgs/msg/CameraInfo", masks: IMAGE}
    times = images()
    more = [(info, times[1][1] + 1, calibrated), (masks, times[2][1] + 1, image_bytes(5, mask))]
    bag = make_bag("drive", topics, sorted([*times, *more], key=lambda each: each[1]))
    run(bag, tmp_path / "out", "--topic", LEFT, "--set", "rectify=true", "--set", "use_mask_topic=true")
    found = [message for _, message in outputs(tmp_path / "out")["/superpoint/features"]]
    for message in found:  # the first calibration counts from the beginning
        xy = np.stack([message.x, message.y], axis=1)
        expected = cv2.undistortPoints(xy[:, None].astype(np.float64), K, D, P=K)[:, 0]
        np.testing.assert_allclose(np.stack([message.rectified_x, message.rectified_y], axis=1), expected, atol=0.05)
    assert all(len(message.x) and (message.x >= 63.5).all() for message in found)  # so does the first mask
    file = tmp_path / "mask.png"
    cv2.imwrite(str(file), mask)
    run(bag, tmp_path / "fixed", "--topic", LEFT, "--set", f"mask_files=[{file}]")
    assert all((message.x >= 63.5).all() for _, message in outputs(tmp_path / "fixed")["/superpoint/features"])
    said = run(bag, tmp_path / "none", "--topic", LEFT, "--set", "rectify=true", "--set", "use_mask_topic=false")
    assert "not rectified" not in said


@pytest.mark.parametrize("masks", [{}, {"/mask": IMAGE}, {"/mask": CAMERA_INFO}])
def test_nothing_is_extracted_unmasked_where_masks_are_wanted_and_not_there(make_bag, run, tmp_path, masks):
    bag = make_bag("drive", {LEFT: IMAGE, **masks}, images(2))
    said = run(bag, tmp_path / "out", "--topic", LEFT, "--set", "use_mask_topic=true", status=1)
    assert re.search("there is no (readable )?mask on /mask, and nothing is extracted without", said)
    assert not (tmp_path / "out").exists()


def test_a_damaged_bag_whose_calibrations_are_gone_is_extracted_all_the_same(make_bag, run, tmp_path):
    bag = make_bag("drive", {LEFT: IMAGE, "/stereo/left/camera_info": CAMERA_INFO}, images())
    (bag / "drive_1.mcap").write_bytes(b"")
    said = run(bag, tmp_path / "out", "--set", "rectify=true", status=1)
    assert "drive_1.mcap: not a readable bag" in said and "not rectified" in said
    assert len(outputs(tmp_path / "out")["/superpoint/features"]) == 6


@pytest.mark.parametrize("late", [-2_000_000, 0, 300_000_000])
def test_each_image_is_rectified_by_the_region_of_interest_of_its_own_stamp(make_bag, run, tmp_path, late):
    info, sent = "/stereo/left/camera_info", images(8)
    stamps = [header_stamp(data) for _, _, data in sent]
    infos = [
        (info, time + late, camera_info_bytes(stamp, 10 * number))
        for number, ((_, time, _), stamp) in enumerate(zip(sent, stamps, strict=True))
    ]
    del infos[6]  # a lost one: another image's would be wrong
    bag = make_bag("drive", {LEFT: IMAGE, info: CAMERA_INFO}, sorted([*sent, *infos], key=lambda each: each[1]))
    said = run(bag, tmp_path / "out", "--set", "rectify=true", status=1)
    assert f"{info}: an image came without its CameraInfo, which differs from image to image" in said
    for number, (_, message) in enumerate(outputs(tmp_path / "out")["/superpoint/features"]):
        if number == 6:
            assert not len(message.rectified_x)
            continue
        full = np.stack([message.x + 10 * number, message.y], axis=1)[:, None].astype(np.float64)
        expected = cv2.undistortPoints(full, K, D, P=K)[:, 0] - (10 * number, 0)
        np.testing.assert_allclose(np.stack([message.rectified_x, message.rectified_y], axis=1), expected, atol=0.05)


def test_no_ros_is_imported_on_the_way(bag, tmp_path, tiny_weights):
    program = """
import sys

class NoRos:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("rclpy", "rosidl_runtime_py", "sensor_msgs", "std_msgs", "builtin_interfaces",
                                  "rcl_interfaces", "rosgraph_msgs") or name == "superpoint_ros.msg":
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, NoRos())
from superpoint_ros.tools.cli import main
main(sys.argv[1:])
"""
    arguments = ["extract", str(bag), str(tmp_path / "out"), "--weights", tiny_weights, "--device", "cpu"]
    result = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert len(outputs(tmp_path / "out")["/superpoint/features"]) == 6


def test_a_batch_gives_what_single_images_give(bag, run, tmp_path):
    run(bag, tmp_path / "one")
    run(bag, tmp_path / "many", "--batch", "4")
    for one, many in zip(*(outputs(tmp_path / name)["/superpoint/features"] for name in ("one", "many")), strict=True):
        np.testing.assert_allclose(many[1].x, one[1].x, atol=1e-3)
        np.testing.assert_allclose(many[1].scores, one[1].scores, atol=1e-5)


def test_progress_and_speed_are_shown(bag, run, tmp_path):
    said = run(bag, tmp_path / "out")
    assert "6/6" in said and "frames/s" in said
    assert "6 frames, 60 keypoints a frame (median); " in said and "all else" in said


def test_several_bags_side_by_side_and_by_rank(make_bag, run, tmp_path, monkeypatch):
    bags = [make_bag(f"drive{number}", {LEFT: IMAGE}, images(4 + number)) for number in range(3)]
    for number, path in enumerate(bags):
        run(path, tmp_path / f"alone{number}")
    said = run(*bags, tmp_path / "nothing", tmp_path / "jobs", "--jobs", "2", status=1)
    assert "nothing: no such bag" in said
    run(*bags, tmp_path / "ranks", "--rank", "1", "--world-size", "2")
    assert [each.name for each in (tmp_path / "ranks").iterdir()] == ["drive1"]
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    run(*bags, tmp_path / "ranks")
    for number in range(3):
        alone = raw(tmp_path / f"alone{number}")
        assert raw(tmp_path / "jobs" / f"drive{number}") == alone
        assert raw(tmp_path / "ranks" / f"drive{number}") == alone
    assert "the rank must lie in 0 to 1" in run(*bags, tmp_path / "ranks", "--rank", "2", status=2)
    monkeypatch.setenv("RANK", "1")
    assert "nothing to do" in run(bags[0], tmp_path / "one")


def test_bags_of_the_same_name_go_to_different_places(make_bag, run, tmp_path):
    for day in ("monday", "tuesday"):
        (tmp_path / day).mkdir()
        make_bag("drive", {LEFT: IMAGE}, images(2)).rename(tmp_path / day / "drive")
    run(tmp_path / "monday" / "drive", tmp_path / "tuesday" / "drive", tmp_path / "out")
    assert len(raw(tmp_path / "out" / "monday" / "drive")) == len(raw(tmp_path / "out" / "tuesday" / "drive")) == 5


def test_an_output_is_never_overwritten(bag, run, tmp_path):
    run(bag, tmp_path / "out")
    assert "exists already; bags are never overwritten" in run(bag, tmp_path / "out", status=1)
    (tmp_path / "other").mkdir()
    assert "has no superpoint_extract.yaml" in run(bag, tmp_path / "other", "--resume", status=1)
