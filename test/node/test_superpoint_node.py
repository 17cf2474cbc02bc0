"""superpoint_ros/node/superpoint_node.py in this process, against real rclpy and DDS."""

import ctypes
import gc
import re
import threading
import time
import weakref
from array import array
from itertools import count
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from robot import image_message, photograph, shifted
from superpoint_ros.frontend.messages import decode_descriptors

OK, NO_REFERENCE = 0, 1


@pytest.fixture
def active(robot):
    """A running node that camera and listener are connected to."""
    node = robot.add_node()
    assert node.start()
    robot.connect(node)
    return node


def test_a_known_motion_is_published_as_features_matches_and_homography(robot, active):
    picture = photograph()
    first = robot.show(image_message(picture, stamp=1))
    second = robot.show(image_message(shifted(picture, 8, 16), stamp=2))
    assert (first.status, second.status) == (NO_REFERENCE, OK)
    assert np.isnan(first.matrix).all()
    np.testing.assert_allclose(second.matrix.reshape(3, 3), [[1, 0, 8], [0, 1, 16], [0, 0, 1]], atol=0.5)
    assert (second.reference_stamp.sec, second.header.stamp.sec, second.header.frame_id) == (
        1,
        2,
        "camera",
    )

    robot.spin_until(lambda: len(robot.features) == 2 and len(robot.matches) == 1, "features and matches")
    before, after, matches = *robot.features, robot.matches[0]
    assert (after.height, after.width, after.descriptor_dim) == (240, 320, 256)
    assert after.weights_id == active._extractor.weights_id
    descriptors = decode_descriptors(after.descriptors, after.descriptor_dim, after.descriptor_type)
    assert descriptors.shape == (len(after.x), 256)
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-5)

    inlier = np.array(matches.inlier, bool)
    assert (second.matches, second.inliers) == (len(inlier), inlier.sum())
    moved = np.array(after.x)[matches.current] - np.array(before.x)[matches.reference]
    assert np.median(moved[inlier]) == pytest.approx(8, abs=1)


def test_colour_images_give_what_their_grey_versions_give(robot, active):
    grey = photograph()
    robot.show(image_message(grey, stamp=1))
    robot.show(image_message(np.repeat(grey[..., None], 3, axis=2), stamp=2, encoding="rgb8"))
    robot.spin_until(lambda: len(robot.features) == 2, "features of both")
    np.testing.assert_array_equal(robot.features[0].x, robot.features[1].x)


def broken_images():
    """Everything a broken driver may send."""
    names = [
        "unknown encoding",
        "short data",
        "small step",
        "zero size",
        "header only",
        "tiny image",
        "stamp before the epoch",
    ]
    messages = [image_message(photograph(), stamp=2) for _ in names]
    messages[0].encoding = "bgr9"
    messages[1].data = array("B", bytes(messages[1].data)[:-1])
    messages[2].step = 319
    messages[3].height = messages[3].width = 0
    messages[4] = type(messages[4])(header=messages[4].header)
    messages[5] = image_message(photograph((8, 8)), stamp=2)
    messages[6].header.stamp.sec = -3
    return zip(names, messages, strict=True)


def test_bad_images_are_counted_and_the_next_good_frame_is_as_if_nothing_had_happened(robot, active):
    picture = photograph()
    robot.show(image_message(picture, stamp=1))
    for bad, (name, message) in enumerate(broken_images(), start=1):
        robot.camera.publish(message)
        robot.spin_until(
            lambda bad=bad: active.cameras[""].faults.count("bad") == bad,
            f"the image with {name} to be counted",
        )
    after = robot.show(image_message(shifted(picture, 8, 0), stamp=3))
    assert (after.status, after.reference_stamp.sec) == (OK, 1)
    robot.await_diagnostics(frames_in=str(bad + 2), frames_out="2", frames_bad=str(bad), frames_failed="0")


def test_an_error_in_the_worker_loses_its_frame_and_nothing_else(robot, active, monkeypatch):
    robot.show(image_message(photograph(), stamp=1))
    monkeypatch.setattr(active._extractor, "batch", lambda pictures, masks: 1 / 0)
    robot.camera.publish(image_message(photograph(), stamp=2))
    robot.spin_until(lambda: active.cameras[""].faults.count("failed") == 1, "the lost frame to be counted")
    monkeypatch.undo()
    assert robot.show(image_message(photograph(), stamp=3)).status == OK
    robot.await_diagnostics(frames_failed="1", frames_out="2")


def test_a_monitor_can_tell_bad_images_lost_frames_and_overload(robot, active, monkeypatch):
    def reported(level, sentence):
        return any(
            status.level == level and sentence in status.message
            for report in robot.diagnostics
            for status in report.status
        )

    broken = image_message(photograph())
    broken.encoding = "bgr9"
    robot.camera.publish(broken)
    robot.spin_until(lambda: reported(b"\x01", "bad images in the last second: 1"), "the bad image to be reported")

    monkeypatch.setattr(active._extractor, "batch", lambda pictures, masks: 1 / 0)
    robot.camera.publish(image_message(photograph()))
    robot.spin_until(lambda: reported(b"\x02", "lost to errors in the last second: 1"), "the lost frame to be reported")

    go_on = threading.Event()
    monkeypatch.setattr(active._extractor, "batch", lambda pictures, masks: go_on.wait(300) and [])
    snapshot = active.cameras[""].statistics.snapshot
    deadline = time.monotonic() + 300
    while not reported(b"\x01", "overloaded: ") and time.monotonic() < deadline:
        count = snapshot().frames_in
        robot.camera.publish(image_message(photograph()))
        robot.spin_until(lambda count=count: snapshot().frames_in > count, "the image to arrive")
    assert reported(b"\x01", "overloaded: ")
    go_on.set()


@pytest.mark.parametrize(("stamp", "size"), [(1, (240, 320)), (3, (200, 320))], ids=["bag loops", "size changes"])
def test_the_reference_is_reset_when_the(robot, active, stamp, size):
    robot.show(image_message(photograph(), stamp=2))
    assert robot.show(image_message(photograph(size), stamp=stamp)).status == NO_REFERENCE
    assert robot.show(image_message(photograph(size), stamp=stamp + 1)).status == OK


def test_the_newest_frame_wins_and_drops_are_counted(robot, active, monkeypatch):
    extract, begun, go_on = active._extractor.batch, threading.Event(), threading.Event()

    def slow(pictures, masks):
        begun.set()
        assert go_on.wait(300)
        return extract(pictures, masks)

    monkeypatch.setattr(active._extractor, "batch", slow)
    robot.camera.publish(image_message(photograph(), stamp=1))
    robot.spin_until(begun.is_set, "the first frame to be in work")
    for stamp in range(2, 7):
        robot.camera.publish(image_message(photograph(), stamp=stamp))
        robot.spin_until(
            lambda n=stamp: active.cameras[""].statistics.snapshot().frames_in == n,
            "the frame to arrive",
        )
    go_on.set()
    robot.spin_until(lambda: len(robot.homographies) == 2, "two homographies")
    assert [message.header.stamp.sec for message in robot.homographies] == [1, 6]
    robot.await_diagnostics(frames_in="6", frames_out="2", frames_dropped="4")


def overload(robot, node, monkeypatch, first):
    """Show two images, and four between them that are dropped, while the first is in work."""
    extract, begun, go_on = type(node._extractor).batch, threading.Event(), threading.Event()

    def slow(*arguments):
        begun.set()
        assert go_on.wait(30)
        return extract(node._extractor, *arguments)

    monkeypatch.setattr(node._extractor, "batch", slow)
    statistics, before = node.cameras[""].statistics, len(robot.homographies)
    robot.camera.publish(image_message(photograph(), stamp=first))
    robot.spin_until(begun.is_set, "the first frame to be in work")
    for stamp in range(first + 1, first + 6):
        came = statistics.counts()[0] + 1
        robot.camera.publish(image_message(photograph(), stamp=stamp))
        robot.spin_until(lambda count=came: statistics.counts()[0] == count, "the frame to arrive")
    go_on.set()
    robot.spin_until(lambda: len(robot.homographies) == before + 2, "two homographies")


def test_a_node_that_is_slower_than_its_camera_says_once_what_would_help(robot, active, monkeypatch):
    from rclpy.impl.rcutils_logger import RcutilsLogger

    from superpoint_ros.frontend import advice

    said = []
    monkeypatch.setattr(RcutilsLogger, "warning", lambda self, sentence, **_: said.append(sentence))
    monkeypatch.setattr(advice, "WINDOW", 0.0)
    monkeypatch.setattr(advice, "WINDOWS", 1)
    for first in (1, 11, 21):
        overload(robot, active, monkeypatch, first)
    robot.spin_until(lambda: any(sentence.startswith("Of ") for sentence in said), "the advice")
    [sentence] = [sentence for sentence in said if sentence.startswith("Of ")]
    assert re.match(
        r"Of [\d.]+ images a second [\d.]+ are extracted: the CPU is slower than the camera\. By what", sentence
    )
    assert re.search(r" [\d.]+ (a second )?with `resize: 160`", sentence)
    robot.await_diagnostics(frames_in="18", frames_out="6", frames_failed="0")


def test_advice_that_fails_costs_no_frame(robot, active, monkeypatch):
    def fail(*arguments):
        raise MemoryError("no room")

    monkeypatch.setattr(active.rig._pipeline._advice, "after", fail)
    robot.show(image_message(photograph(), stamp=1))
    robot.show(image_message(photograph(), stamp=2))
    robot.await_diagnostics(frames_in="2", frames_out="2", frames_failed="0")


def test_diagnostics_report_once_a_second_with_every_key(robot, active):
    robot.show(image_message(photograph()))
    robot.await_diagnostics(frames_out="1")
    expected = {
        "frames_in", "frames_out", "frames_dropped", "frames_bad", "frames_failed",
        "frames_unmatched", "frames_unmasked", "frames_lost", "rate_in_hz", "rate_out_hz",
        "latency_ms_p50", "latency_ms_p95", "age_ms_p50", "age_ms_p95",
        "keypoints_median", "topic", "device", "engine", "weights_id",
    }  # fmt: skip
    assert expected <= robot.values().keys()
    assert float(robot.values()["latency_ms_p50"]) > 0
    assert robot.diagnostics[-1].status[0].hardware_id == "/image"
    count = len(robot.diagnostics)
    robot.spin_until(lambda: len(robot.diagnostics) >= count + 2, "two more reports", seconds=300)


def test_live_parameters_change_the_next_frame(robot, active):
    from rclpy.parameter import Parameter

    robot.show(image_message(photograph(), stamp=1))
    results = active.set_parameters(
        [
            Parameter("max_keypoints", value=17),
            Parameter("descriptor_type", value="uint8"),
            Parameter("resize", value=160),
        ]
    )
    assert all(result.successful for result in results)
    robot.show(image_message(photograph(), stamp=2))
    robot.spin_until(lambda: len(robot.features) == 2, "features")
    assert len(robot.features[1].x) == 17
    assert len(robot.features[1].descriptors) == 17 * 256
    assert max(robot.features[1].x) > 160


def test_scales_change_live_and_every_position_says_how_coarse_it_is(robot, active):
    from rclpy.parameter import Parameter

    robot.show(image_message(photograph(), stamp=1))
    assert active.set_parameters([Parameter("scales", value="1.0, 0.5")])[0].successful
    robot.show(image_message(photograph(), stamp=2))
    robot.spin_until(lambda: len(robot.features) == 2, "features")
    one, two = robot.features
    assert (set(one.scale), set(two.scale)) == ({1.0}, {1.0, 2.0})
    assert len(one.scale) == len(one.x) and len(two.scale) == len(two.x)
    refused = active.set_parameters([Parameter("scales", value="0.5, 1.0")])[0]
    assert not refused.successful and "parameter 'scales' must be single, video, matching, zoom, or" in refused.reason


def test_a_switched_off_output_is_not_published(robot, active):
    from rclpy.parameter import Parameter

    active.set_parameters([Parameter("publish_features", value=False)])
    robot.show(image_message(photograph(), stamp=1))
    robot.show(image_message(photograph(), stamp=2))
    robot.spin_until(lambda: len(robot.matches) == 1, "matches")
    assert robot.features == []


def test_weights_change_only_by_cleanup_and_configure(robot, active, tmp_path):
    from rclpy.parameter import Parameter

    from superpoint_ros.network.checkpoint import DEFAULT_WEIGHTS

    copy = tmp_path / "other.safetensors"
    copy.write_bytes(DEFAULT_WEIGHTS.read_bytes())
    change = [Parameter("weights", value=str(copy))]
    refused = active.set_parameters(change)[0]
    assert not refused.successful
    assert "deactivate and clean up first" in refused.reason
    active.trigger_deactivate()
    active.trigger_cleanup()
    assert active.set_parameters(change)[0].successful
    assert active.start()
    robot.connect(active)
    assert robot.show(image_message(photograph())).status == NO_REFERENCE


def test_weights_are_chosen_by_name(robot):
    node = robot.add_node(weights="fast")
    assert node.start()
    robot.connect(node)
    robot.show(image_message(photograph(), stamp=1))
    robot.spin_until(lambda: robot.features, "features")
    assert robot.features[0].weights_id.startswith("superpoint_ros_fast_")


def test_a_destroyed_node_gives_the_network_back(robot, active):
    """rclpy may keep the node itself for the rest of the process."""
    network = weakref.ref(active._extractor)
    robot.executor.remove_node(active)
    active.destroy_node()
    gc.collect()
    assert network() is None


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33 or newer")
def test_cleanup_gives_the_memory_back_each_time(robot):
    class Mallinfo(ctypes.Structure):
        names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
        _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = Mallinfo

    def in_use():
        now = mallinfo()
        return (now.uordblks + now.hblkhd) / 2**20

    def resident():
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("RssAnon"))) / 1024

    node, used, held = robot.add_node(), [], []
    for _ in range(8):
        assert node.start()
        configured = in_use()
        node.trigger_deactivate()
        node.trigger_cleanup()
        used.append(in_use())
        held.append(resident())
        assert used[-1] < configured - 50  # MB: the network is gone
    assert used[-1] < used[1] + 1
    # What glibc holds back depends on which threads met in malloc: it never trims the end of a thread's heap, 64 MB at
    # most. So held memory may rise once, but not round by round.
    assert min(held[-3:]) < max(held[:3]) + 20


def test_an_inactive_node_does_not_listen_and_an_active_one_again(robot, active):
    robot.show(image_message(photograph(), stamp=1))
    active.trigger_deactivate()
    robot.spin_until(lambda: robot.camera.get_subscription_count() == 0, "the subscription to go")
    active.trigger_activate()
    robot.connect(active)
    assert robot.show(image_message(photograph(), stamp=2)).status == NO_REFERENCE


def test_a_missing_weights_file_fails_configure_and_leaves_the_node_alive(robot, tmp_path):
    from rclpy.parameter import Parameter

    node = robot.add_node(weights=str(tmp_path / "none.pth"))
    assert node.start() is False
    assert node.set_parameters([Parameter("weights", value="")])[0].successful
    assert node.start()


def test_compressed_images_are_subscribed_to_by_parameter(robot):
    import cv2
    from sensor_msgs.msg import CompressedImage

    node = robot.add_node(image_transport="compressed")
    assert node.start()
    robot.camera = robot.client.create_publisher(CompressedImage, "/image/compressed", 1)
    robot.connect(node)
    picture = photograph()
    message = CompressedImage(format="png", data=array("B", cv2.imencode(".png", picture)[1].tobytes()))
    robot.show(message)
    message.data = message.data[: len(message.data) // 3]
    robot.camera.publish(message)
    robot.spin_until(lambda: node.cameras[""].faults.count("bad") == 1, "the truncated picture to be counted")
    message.data = array("B", cv2.imencode(".png", shifted(picture, 8, 0))[1].tobytes())
    assert robot.show(message).status == OK


def failing_once(method):
    """The method, but for an error after its first call: the cleaning up after it goes through."""
    errors = [KeyError("no such thing")]

    def call():
        method()
        if errors:
            raise errors.pop()

    return call


@pytest.mark.parametrize("where", ["configure", "activate", "deactivate", "cleanup"])
def test_an_exception_in_a_transition_is_told_and_cleaned_up_and_the_node_can_be_started_again(
    robot, monkeypatch, where
):
    from rclpy.impl.rcutils_logger import RcutilsLogger
    from rclpy.parameter import Parameter

    from superpoint_ros.node import superpoint_node

    said = []
    monkeypatch.setattr(RcutilsLogger, "error", lambda self, sentence, **_: said.append(sentence))
    node = robot.add_node()

    def fail(*arguments):
        raise KeyError("no such thing")

    before = threading.active_count()
    with monkeypatch.context() as patch:
        if where == "configure":
            patch.setattr(superpoint_node, "Rig", fail)
            assert not node.start()
        elif where == "activate":
            assert node.trigger_configure() == superpoint_node.SUCCESS
            patch.setattr(node.cameras[""].inputs, "open", fail)
            assert node.trigger_activate() != superpoint_node.SUCCESS
        else:
            assert node.start()
            if where == "cleanup":
                node.trigger_deactivate()
            method = "stop" if where == "deactivate" else "destroy"
            patch.setattr(node.rig, method, failing_once(getattr(node.rig, method)))
            (node.trigger_deactivate if where == "deactivate" else node.trigger_cleanup)()
    assert said[0].startswith(f"An error in '{where}': KeyError: 'no such thing' (") and ".py:" in said[0]
    assert "superpoint-worker" not in [thread.name for thread in threading.enumerate()]
    gc.collect()  # the traceback of the exception held the network
    robot.spin_until(lambda: threading.active_count() <= before, "the network's threads to end", 20)
    assert node.set_parameters([Parameter("weights", value="")])[0].successful
    assert not node.cameras and node.start()
    robot.connect(node)
    assert robot.show(image_message(photograph())).status == NO_REFERENCE


def test_deactivate_gives_up_on_a_frame_that_hangs_and_its_result_is_thrown_away(robot, active, monkeypatch):
    from superpoint_ros.node import rig

    monkeypatch.setattr(rig, "STOP_LIMIT", 0.1)
    extract, begun, go_on = active._extractor.batch, threading.Event(), threading.Event()

    def hanging(pictures, masks):
        begun.set()
        assert go_on.wait(120)
        return extract(pictures, masks)

    monkeypatch.setattr(active._extractor, "batch", hanging)
    robot.camera.publish(image_message(photograph(), stamp=1))
    robot.spin_until(begun.is_set, "the frame to be in work")
    active.trigger_deactivate()
    assert not active.rig.running
    active.trigger_activate()
    assert not active.rig.running  # the frame may not meet the next in the network
    go_on.set()
    robot.spin_until(lambda: not active.rig._abandoned.busy, "the worker to end")
    active.trigger_activate()
    robot.connect(active)
    assert robot.show(image_message(photograph(), stamp=2)).status == NO_REFERENCE
    assert len(robot.homographies) == 1 and active.cameras[""].faults.count("failed") == 1


def test_cleanup_does_not_wait_for_a_gpu_that_hangs(robot, active, monkeypatch):
    from superpoint_ros.node import network, rig

    freed, begun, go_on = [], threading.Event(), threading.Event()
    monkeypatch.setattr(rig, "STOP_LIMIT", 0.1)
    monkeypatch.setattr(network.torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(network.torch.cuda, "empty_cache", lambda: freed.append(begun.is_set()))
    monkeypatch.setattr(active._extractor, "batch", lambda *_: begun.set() or go_on.wait(120))
    robot.camera.publish(image_message(photograph(), stamp=1))
    robot.spin_until(begun.is_set, "the frame to be in work")
    active.trigger_deactivate()
    active.trigger_cleanup()
    assert not freed
    go_on.set()
    assert active.start()
    active.trigger_deactivate()
    active.trigger_cleanup()
    assert freed == [True]


def warned(robot, sentence):
    """Whether diagnostics have warned with this in the message."""
    return any(s.level == b"\x01" and sentence in s.message for report in robot.diagnostics for s in report.status)


def test_images_without_keypoints_are_warned_of_with_the_likely_reason(robot, active):
    robot.show(image_message(np.zeros((240, 320), np.uint8)))
    expected = "no keypoints in the last second: the image is black"
    robot.spin_until(lambda: warned(robot, expected), "the warning")


def test_homographies_that_fail_for_long_are_warned_of(robot, active, monkeypatch):
    from rclpy.parameter import Parameter

    from superpoint_ros.node import health

    monkeypatch.setattr(health, "SILENCE", 0.3)
    rng = np.random.default_rng(0)
    for stamp in range(1, 100):  # each picture has nothing to do with the one before
        picture = np.kron(rng.integers(0, 256, (15, 20), np.uint8), np.ones((16, 16), np.uint8))
        robot.show(image_message(picture, stamp))
        if warned(robot, "no homography for "):
            break
    else:
        pytest.fail("no warning after 100 pictures")
    assert active.set_parameters([Parameter("publish_homography", value=False)])[0].successful
    stamps = count(200)

    def better():
        robot.camera.publish(image_message(photograph(), next(stamps)))  # again, as each may be lost
        return "no homography for " not in robot.diagnostics[-1].status[0].message

    robot.spin_until(better, "the end of the warning, as nobody wants any")


def test_what_happens_to_a_running_node_is_logged_once(robot, monkeypatch):
    from rclpy.impl.rcutils_logger import RcutilsLogger
    from std_srvs.srv import SetBool

    said = []
    monkeypatch.setattr(RcutilsLogger, "info", lambda self, sentence, **_: said.append(sentence))
    node = robot.add_node(lazy=False)
    assert node.start()
    robot.connect(node)
    for stamp in (1, 2, 3):
        robot.show(image_message(photograph(), stamp))
    call(robot, SetBool, "/superpoint/enable", data=False)
    call(robot, SetBool, "/superpoint/enable", data=True)
    robot.connect(node)
    robot.show(image_message(photograph(), stamp=4))
    node.trigger_deactivate()
    node.trigger_cleanup()
    waiting, coming = "Waiting for images on /image.", "Images come in on /image: '320×240 mono8'."
    assert said[1:] == [
        waiting,
        coming,
        "No longer listening to /image.",
        "~/enable: node is disabled and active.",
        waiting,
        "~/enable: node is enabled and active.",
        coming,
        "No longer listening to /image.",
        "Network and topics are given back; every parameter may be changed.",
    ]


def test_cuda_that_is_not_there_falls_back_to_the_cpu(robot, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    node = robot.add_node(device="cuda")
    assert node.start()
    assert node._extractor.device == "cpu"


@pytest.mark.parametrize("device, engine", [("auto", "auto"), ("cuda:0", "cudagraph")])
def test_a_gpu_that_cannot_be_used_falls_back_to_the_cpu_and_the_diagnostics_say_why(
    robot, monkeypatch, device, engine
):
    import torch

    from superpoint_ros.network.engines import choice
    from superpoint_ros.network.engines.devices import DeviceUnusable

    def unusable(device):
        raise DeviceUnusable(f"GPU {device} cannot be used: CUDA error: no kernel image is available")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(choice, "require_usable", unusable)
    node = robot.add_node(device=device, engine=engine)
    assert node.start()
    assert node._extractor.device == "cpu"
    expected = f"runs on the CPU though device is '{device}': GPU cuda:0 cannot be used: CUDA error: no kernel image"
    robot.spin_until(
        lambda: robot.diagnostics and robot.diagnostics[-1].status[0].message.startswith(expected), "the warning"
    )
    assert robot.diagnostics[-1].status[0].level == b"\x01"


def test_a_gpu_prepares_for_all_cameras_at_the_first_image_of_a_size_and_says_how_long_it_took(
    robot, active, monkeypatch
):
    from rclpy.impl.rcutils_logger import RcutilsLogger

    asked, said = [], []
    monkeypatch.setattr(RcutilsLogger, "info", lambda self, sentence, **_: said.append(sentence))
    active._extractor.prepare = lambda size, count: asked.append((size, count)) or 2.5 * (len(asked) == 1)
    for stamp in (1, 2):
        robot.show(image_message(photograph(), stamp=stamp))
    assert asked == [((240, 320), 1)] * 2
    assert [sentence for sentence in said if "prepared" in sentence] == [
        "cpu was prepared for up to 1 picture(s) of 320×240 at a time in 2.5 s."
    ]


def call(robot, service_type, name, **request):
    """Call a service of the node; returns its response."""
    client = robot.client.create_client(service_type, name)
    robot.spin_until(client.service_is_ready, f"the service {name}")
    future = client.call_async(service_type.Request(**request))
    robot.spin_until(future.done, f"an answer of {name}")
    return future.result()


def test_tracks_and_keyframes_are_published_when_asked_for(robot):
    node = robot.add_node(tracks=True, reference="keyframe")
    assert node.start()
    robot.connect(node)
    for stamp in (1, 2, 3):
        message = robot.show(image_message(shifted(photograph(), 8 * stamp, 0), stamp))
    assert message.reference_stamp.sec == 1
    robot.spin_until(lambda: len(robot.features) == 3 and len(robot.matches) == 2, "all of them")
    assert robot.matches[1].reference_stamp.sec == 1
    ids = [np.array(features.track_ids) for features in robot.features]
    assert [len(one) for one in ids] == [len(features.x) for features in robot.features]
    x = [dict(zip(i.tolist(), f.x, strict=True)) for i, f in zip(ids, robot.features, strict=True)]
    common = x[0].keys() & x[2].keys()
    assert len(common) > 20
    assert np.median([x[2][i] - x[0][i] for i in common]) == pytest.approx(16, abs=0.5)


def test_tracking_that_fails_does_not_take_the_features_with_it(robot, monkeypatch):
    node = robot.add_node(tracks=True)
    assert node.start()
    robot.connect(node)
    monkeypatch.setattr(node.cameras[""].tracker, "advance", lambda *_, **__: [][1])
    robot.camera.publish(image_message(photograph(), stamp=1))
    robot.spin_until(lambda: len(robot.features) == 1, "the features")
    assert len(robot.features[0].x) > 20 and len(robot.features[0].track_ids) == 0
    robot.spin_until(lambda: node.cameras[""].faults.count("failed") == 1, "the failure to be counted")


def test_a_stamp_at_the_end_of_int32_can_be_a_reference(robot, active):
    late = image_message(photograph(), stamp=(1 << 31) - 1)
    late.header.stamp.nanosec = 1_500_000_000
    robot.show(late)
    later = image_message(photograph(), stamp=(1 << 31) - 1)
    later.header.stamp.nanosec = 1_600_000_000
    message = robot.show(later)
    assert message.status == OK
    assert (message.reference_stamp.sec, message.reference_stamp.nanosec) == ((1 << 31) - 1, 1_500_000_000)


def test_sixteen_bit_images_are_shown_by_a_range_that_diagnostics_name(robot, active):
    for stamp in (1, 2):
        deep = 7000 + 2 * photograph().astype(np.uint16)
        message = robot.show(image_message(deep, stamp=stamp, encoding="mono16"))
    assert message.status == OK
    robot.await_diagnostics(frames_out="2", frames_bad="0")
    low, high = robot.values()["intensity_range_found"].split(" to ")
    assert 6900 < float(low) < 7100 and 7400 < float(high) < 7700


def test_reset_drops_the_reference(robot, active):
    from std_srvs.srv import Trigger

    robot.show(image_message(photograph(), stamp=1))
    assert call(robot, Trigger, "/superpoint/reset").success
    assert robot.show(image_message(photograph(), stamp=2)).status == NO_REFERENCE
    assert robot.show(image_message(photograph(), stamp=3)).status == OK


def test_a_disabled_node_does_not_listen_until_it_is_enabled(robot, active):
    from std_srvs.srv import SetBool

    robot.show(image_message(photograph(), stamp=1))
    assert call(robot, SetBool, "/superpoint/enable", data=False).success
    robot.spin_until(lambda: robot.camera.get_subscription_count() == 0, "the subscription to go")
    robot.spin_until(
        lambda: robot.diagnostics and robot.diagnostics[-1].status[0].message == "node is disabled",
        "diagnostics",
    )
    active.trigger_deactivate()
    active.trigger_activate()
    assert robot.client.count_subscribers("/image") == 0
    response = call(robot, SetBool, "/superpoint/enable", data=True)
    assert (response.success, response.message) == (True, "node is enabled and active")
    robot.connect(active)
    assert robot.show(image_message(photograph(), stamp=2)).status == NO_REFERENCE


def test_features_do_not_wait_for_the_match_unless_they_carry_its_track_ids(robot, active, monkeypatch):
    from rclpy.parameter import Parameter

    begun, go_on = threading.Event(), threading.Event()
    tracker = active.cameras[""].tracker
    advance = tracker.advance

    def held(*arguments, **options):
        begun.set()
        assert go_on.wait(300)
        return advance(*arguments, **options)

    monkeypatch.setattr(tracker, "advance", held)
    robot.camera.publish(image_message(photograph(), stamp=1))
    robot.spin_until(lambda: robot.features, "features before their match")
    assert not robot.homographies and len(robot.features[0].track_ids) == 0
    go_on.set()
    robot.spin_until(lambda: robot.homographies, "the homography")
    assert robot.homographies[0].header == robot.features[0].header

    assert active.set_parameters([Parameter("tracks", value=True)])[0].successful
    begun.clear()
    go_on.clear()
    robot.camera.publish(image_message(photograph(), stamp=2))
    robot.spin_until(begun.is_set, "the match to begin")
    robot.spin_until_quiet()
    assert len(robot.features) == 1
    go_on.set()
    robot.spin_until(lambda: len(robot.features) == 2, "features with track ids")
    assert len(robot.features[1].track_ids) == len(robot.features[1].x) > 0


def test_pictures_and_markers_are_made_only_while_someone_looks(robot, active, monkeypatch):
    from sensor_msgs.msg import Image
    from visualization_msgs.msg import ImageMarker

    from superpoint_ros.node import outputs

    made = []
    for name in ("draw", "keypoint_marker", "motion_marker"):
        original = getattr(outputs, name)
        monkeypatch.setattr(outputs, name, lambda *a, n=name, f=original: made.append(n) or f(*a))
    robot.show(image_message(photograph(), stamp=1))
    robot.show(image_message(photograph(), stamp=2))
    assert made == []

    images, dots, lines = [], [], []
    robot.client.create_subscription(Image, "/superpoint/debug_image", images.append, 10)
    robot.client.create_subscription(ImageMarker, "/superpoint/annotations/keypoints", dots.append, 10)
    robot.client.create_subscription(ImageMarker, "/superpoint/annotations/motion", lines.append, 10)
    topics = ("debug_image", "annotations/keypoints", "annotations/motion")
    publishers = [active.cameras[""].outputs.publishers[topic] for topic in topics]
    robot.spin_until(lambda: all(p.get_subscription_count() for p in publishers), "the viewers")
    robot.show(image_message(shifted(photograph(), 8, 0), stamp=3))
    robot.spin_until(lambda: images and dots and lines, "pictures and markers")
    assert sorted(made) == ["draw", "keypoint_marker", "motion_marker"]
    image = images[0]
    assert (image.encoding, image.height, image.width, image.step) == ("bgr8", 240, 320, 960)
    assert (image.header.stamp.sec, image.header.frame_id) == (3, "camera")
    canvas = np.frombuffer(image.data, np.uint8).reshape(240, 320, 3)
    assert (canvas[..., 0] != canvas[..., 1]).any()
    robot.spin_until(lambda: len(robot.features) == 3, "features")
    assert len(dots[0].points) == len(robot.features[2].x)
    assert dots[0].header == lines[0].header == image.header
