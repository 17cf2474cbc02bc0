"""The demo from end to end, with the real node over real DDS."""

from __future__ import annotations

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin

from bag_samples import SECOND, image_bytes
from superpoint_ros.bags.content import COMPRESSED_IMAGE, IMAGE, header_stamp
from superpoint_ros.bags.reader import BagReader
from superpoint_ros.tools.cli import cli
from superpoint_ros.tools.demo import command

END_TO_END = pytest.mark.timeout(600)
"""Seconds: most of it is the node's loading of torch, on a machine that others use too."""


def demo(*arguments, check=True):
    """Run `superpoint demo` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "superpoint_ros.tools.cli", "demo", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done


def frames_of(video):
    capture = cv2.VideoCapture(str(video))
    count = 0
    while capture.read()[0]:
        count += 1
    return count


@pytest.fixture
def needs_node():
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    pytest.importorskip("superpoint_ros.msg", reason="needs the built messages of superpoint_ros")


@pytest.fixture
def needs_photographs():
    pytest.importorskip("skimage", reason="scikit-image is not installed")


@END_TO_END
def test_the_node_finds_the_true_motion_of_the_camera(tmp_path, needs_node, needs_photographs):
    done = demo("--frames", 20, "--out", tmp_path, "--device", "cpu", "--lockstep")
    assert done.stdout.rstrip().endswith("Passed.")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["frames_sent"] == summary["features_received"] == summary["homographies_received"] == 20
    assert summary["homographies_ok"] == 19 and summary["dropped"] == 0
    assert 0 < summary["median_corner_error_px"] < 1
    assert summary["median_corner_error_px"] <= summary["p95_corner_error_px"]
    assert 50 < summary["median_keypoints"] <= 1024
    assert 0 < summary["latency_ms_p50"] <= summary["latency_ms_p95"]
    assert summary["device"] == "cpu" and "@" in summary["weights_id"]
    assert summary["weights_id"] in done.stdout
    assert frames_of(tmp_path / "overlay.mp4") == 20
    assert cv2.imread(str(tmp_path / "overview.png")) is not None
    with AnyReader([tmp_path / "features_bag"]) as bag:
        counts = {connection.topic: connection.msgcount for connection in bag.connections}
        assert counts["/superpoint/features"] == summary["features_received"]
        assert counts["/superpoint/matches"] == summary["homographies_ok"]
        connection = next(c for c in bag.connections if c.topic == "/superpoint/features")
        for _, time, data in bag.messages([connection]):
            features = bag.deserialize(data, connection.msgtype)
            assert len(features.descriptors) == len(features.x) * features.descriptor_dim * 2  # float16
            assert abs(time - header_stamp(data)) < 600 * SECOND


@END_TO_END
def test_a_bag_of_ones_own_is_played_without_truth(make_bag, tmp_path, photograph, needs_node):
    frames = [photograph[:, x : x + 240] for x in range(0, 60, 3)]
    stamps = [100 * SECOND + number * SECOND // 4 for number in range(len(frames))]
    images = [
        ("/cam/image/compressed", stamp, image_bytes(stamp, frame, compressed=True))
        for stamp, frame in zip(stamps, frames, strict=True)
    ]
    broken = images[7][2][:60] + b"\0" * (len(images[7][2]) - 60)
    images[7] = (*images[7][:2], broken)
    topics = {"/cam/image/compressed": COMPRESSED_IMAGE, "/cam/depth": IMAGE}
    bag = make_bag("own", topics, images, StoragePlugin.SQLITE3)
    done = demo("--bag", bag, "--topic", "/cam/image/compressed", "--out", tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    # how many a busy machine drops is its own affair, and the broken image may be one of them
    assert summary["frames_sent"] == 20 and 1 < summary["features_received"] <= 19
    assert summary["median_corner_error_px"] is None and summary["p95_corner_error_px"] is None
    assert summary["homographies_ok"] >= summary["homographies_received"] - 1
    assert "1 unreadable" in done.stdout or "replaced by a newer one in the node" in done.stdout
    assert frames_of(tmp_path / "out" / "overlay.mp4") == 19
    assert (tmp_path / "out" / "overview.png").is_file()
    assert not (tmp_path / "out" / "camera_bag").exists()
    with BagReader(bag) as reader:
        assert len(list(reader.messages())) == 20, "the bag is left as it was"


@END_TO_END
def test_what_of_a_bag_cannot_be_played_is_told_and_the_rest_judged(make_bag, tmp_path, photograph, needs_node):
    stamps = [100 * SECOND + number * SECOND for number in range(8)]
    images = [
        ("/image", stamp, image_bytes(stamp, photograph[:, 3 * number : 3 * number + 240]))
        for number, stamp in enumerate(stamps)
    ]
    images[0] = ("/image", stamps[0], b"\0\1\0\0\1\2")
    images[4] = ("/image", stamps[4], images[4][2][:30])  # a stamp, but no image
    bag = make_bag("own", {"/image": IMAGE}, images)
    metadata = bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("message_count: 8", "message_count: 9"))
    done = demo("--bag", bag, "--out", tmp_path / "out", "--lockstep", check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "8 of 9 messages on /image are there" in done.stderr
    assert "1 messages on /image end before their headers do" in done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["frames_sent"] == 7 and summary["features_received"] == 6
    assert summary["homographies_ok"] >= 4
    assert frames_of(tmp_path / "out" / "overlay.mp4") == 6


@END_TO_END
def test_a_node_that_dies_is_quoted(make_images, tmp_path, needs_node):
    (tmp_path / "weights.pth").write_text("not weights")
    bag = make_images()
    done = demo("--bag", bag, "--out", tmp_path / "out", "--weights", tmp_path / "weights.pth", check=False)
    assert done.returncode == 1
    assert "the node ended by itself with status 1; its last words:" in done.stderr
    assert "weights.pth: neither safetensors nor a torch file" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "summary.json").exists()


def run(*arguments):
    return CliRunner().invoke(cli, ["demo", *map(str, arguments)])


def test_a_missing_topic_is_answered_with_those_there_are(make_images, tmp_path, needs_node):
    result = run("--bag", make_images(), "--topic", "/nope", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "there is no topic /nope; its image topics are: /camera/image_raw" in result.output
    assert len(result.output.strip().splitlines()) == 1


@pytest.mark.parametrize("option", [("--topic", "/typo"), ("--bag", "gone")])
def test_what_cannot_begin_leaves_the_last_results_alone(make_images, tmp_path, needs_node, option):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("summary.json", "overlay.mp4", "overview.png"):
        (out / name).write_text("the last run's")
    assert run("--bag", make_images(), "--out", out, *option).exit_code == 1
    assert {path.name: path.read_text() for path in out.iterdir()} == dict.fromkeys(
        ("summary.json", "overlay.mp4", "overview.png"), "the last run's"
    )


def test_a_bag_that_cannot_be_read_gets_one_sentence(tmp_path, needs_node):
    (tmp_path / "text.mcap").write_text("not a bag")
    for name in ("text.mcap", "missing"):
        result = run("--bag", tmp_path / name, "--out", tmp_path / "out")
        assert result.exit_code == 1 and name in result.output
        assert len(result.output.strip().splitlines()) == 1


def test_results_are_not_deleted_from_a_folder_with_other_things(make_images, tmp_path, needs_node):
    mine = tmp_path / "out" / "features_bag" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    result = run("--bag", make_images(), "--out", tmp_path / "out")
    assert result.exit_code == 1 and "features_bag" in result.output
    assert mine.read_text() == "precious"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--topic", "/camera"),
        ("--duration", "3"),
        ("--frames", "1"),
        ("--rate", "0"),
        ("--weights", "missing.pth"),
    ],
)
def test_wrong_arguments_are_refused(arguments, needs_node):
    result = run(*arguments)
    assert result.exit_code == 2 and "Error: " in result.output


@pytest.mark.parametrize("missing", ["rclpy", "superpoint_ros.msg"])
def test_without_ros_it_says_what_to_do(monkeypatch, missing):
    find = command.importlib.util.find_spec
    monkeypatch.setattr(
        command.importlib.util,
        "find_spec",
        lambda name, *rest: None if name == missing else find(name, *rest),
    )
    result = run()
    assert result.exit_code == 1
    assert "needs ROS 2" in result.output and "make demo" in result.output


def test_the_photographs_of_the_fixture_move(photograph):
    # what the test of one's own bag relies on
    assert np.abs(photograph[:, :240].astype(int) - photograph[:, 3:243]).mean() > 2
