"""`superpoint bench --node`: what the node adds to the extraction, over real DDS.

The node runs in a process of its own. Latency: one 640×480 image at a time, from the publisher's
call to the subscriber's callback with the serialised features, less the extraction between them.
Overload: images at five times the rate at which the node extracts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from array import array
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.time import Time
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from superpoint_ros.features.extractor import Features as Found
from superpoint_ros.msg import Features
from superpoint_ros.network.parity import built_in_picture
from superpoint_ros.node.messages import DESCRIPTOR_TYPES, features_fields, to_message
from superpoint_ros.tools.session import POLL, Timeout, private_domain, ros_session, wait_until

SIZE = (480, 640)
FRAMES = 20
OVERLOAD = 5
START = 120.0


@dataclass
class _Listener:
    """What arrives on ~/features: when, in steady and in wall-clock nanoseconds, and the bytes."""

    arrivals: list[tuple[int, int, bytes]] = field(default_factory=list)

    def __call__(self, data: bytes) -> None:
        self.arrivals.append((time.monotonic_ns(), time.time_ns(), data))


def measure_node(device: str, engine: str, seconds: int) -> dict[str, Any]:
    """Run every measurement and print it as it comes; returns what the JSON holds."""
    report: dict[str, Any] = {"message_building_ms": {}, "latency": []}
    for kind in DESCRIPTOR_TYPES:
        taken, size = _message_building(kind)
        report["message_building_ms"][kind] = taken
        click.echo(f"building a message of 1024 {kind} descriptors, {size} bytes: {taken:.2f} ms")
    for kind in DESCRIPTOR_TYPES:
        with _NodeUnderTest(device, engine, kind) as node:
            row = {"descriptor_type": kind, **_latency(node)}
        report["latency"].append(row)
        click.echo(
            f"{kind}: latency less extraction p50 {row['overhead_ms_p50']:.2f} ms, p95 "
            f"{row['overhead_ms_p95']:.2f} ms (before {row['before_ms_p50']:.2f}, after "
            f"{row['after_ms_p50']:.2f}); extraction {row['extraction_ms_p50']:.1f} ms, "
            f"{row['keypoints']} keypoints, {row['bytes']} bytes"
        )
    with _NodeUnderTest(device, engine, "float32") as node:
        row = _overload(node, seconds)
    report["overload"] = row
    click.echo(
        f"{OVERLOAD} times as many images as can be extracted, {seconds} s: "
        f"{row['sent']} sent, {row['received']} received; age p50 {row['age_ms_p50']:.1f} ms, p95 "
        f"{row['age_ms_p95']:.1f} ms, max {row['age_ms_max']:.1f} ms (extraction p50 "
        f"{row['extraction_ms_p50']:.1f} ms); {row['late']} of {row['received']} older than two "
        f"extractions and 3 ms; resident memory {row['rss_mb_start']:.1f} to "
        f"{row['rss_mb_end']:.1f} MB"
    )
    return report


class _NodeUnderTest:
    """The node in its own process and domain, a camera and a listener here."""

    def __init__(self, device: str, engine: str, descriptor_type: str) -> None:
        parameters = {
            "device": device,
            "engine": engine,
            "descriptor_type": descriptor_type,
            # so that 1024 keypoints are found in any picture
            "detection_threshold": "0.0001",
        }
        self._folder = tempfile.TemporaryDirectory()
        self._clock = Path(self._folder.name, "clock.txt")
        self._log = Path(self._folder.name, "log.txt")
        self._domain = private_domain()
        module = "superpoint_ros.tools.bench.timed_node"
        self._command = [sys.executable, "-m", module, str(self._clock), "--ros-args"]
        self._command += ["-r", "image:=/camera/image"]
        for name, value in parameters.items():
            self._command += ["-p", f"{name}:={value}"]
        self.listener = _Listener()

    def __enter__(self) -> _NodeUnderTest:
        environment = {
            **os.environ,
            "ROS_DOMAIN_ID": str(self._domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        }
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        self._session = ros_session("bench", self._domain)
        ros: Node = self._session.__enter__()
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.camera = ros.create_publisher(Image, "/camera/image", qos)
        ros.create_subscription(Features, "/superpoint/features", self.listener, 10, raw=True)
        try:
            wait_until(
                lambda: self.camera.get_subscription_count() > 0 and ros.count_publishers("/superpoint/features") > 0,
                START,
                "node that listens",
                self.check,
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._session.__exit__(None, None, None)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._folder.cleanup()

    def check(self) -> None:
        """Raise with the node's last words if it has ended."""
        if self._process.poll() is not None:
            words = self._log.read_text(errors="replace")[-1000:]
            raise click.ClickException(f"the node ended by itself; its last words:\n{words}")

    def extractions(self) -> list[tuple[int, int]]:
        """Begin and end of each so far, nanoseconds of the steady clock; the first is a warm-up."""
        lines = self._clock.read_text(encoding="ascii").splitlines()
        pairs = [tuple(map(int, line.split())) for line in lines]
        return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]

    def resident_mb(self) -> float:
        """Of the node's process; Linux only."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _latency(node: _NodeUnderTest) -> dict[str, Any]:
    before, after, extraction = [], [], []
    _wake(node)
    for index in range(FRAMES):
        had, done = len(node.listener.arrivals), len(node.extractions())
        sent = _show(node, _image(index % 2))
        wait_until(partial(_more_than, node.listener.arrivals, had), 60, "features", node.check)
        begin, end = node.extractions()[done]
        before.append((begin - sent) / 1e6)
        after.append((node.listener.arrivals[-1][0] - end) / 1e6)
        extraction.append((end - begin) / 1e6)
    overhead = np.add(before, after)
    data = node.listener.arrivals[-1][2]
    return {
        "overhead_ms_p50": float(np.percentile(overhead, 50)),
        "overhead_ms_p95": float(np.percentile(overhead, 95)),
        "before_ms_p50": float(np.median(before)),
        "after_ms_p50": float(np.median(after)),
        "extraction_ms_p50": float(np.median(extraction)),
        "keypoints": len(deserialize_message(data, Features).x),
        "bytes": len(data),
    }


def _wake(node: _NodeUnderTest) -> None:
    """Show images until features come: best effort loses what is sent before discovery is done."""
    deadline = time.monotonic() + 60
    while not node.listener.arrivals and time.monotonic() < deadline:
        _show(node, _image(0))
        try:
            wait_until(lambda: bool(node.listener.arrivals), 3, "features", node.check)
        except Timeout:
            continue
    # what else was sent is on its way, too
    time.sleep(2)


def _show(node: _NodeUnderTest, message: Image) -> int:
    """Publish an image stamped now; returns now, in nanoseconds of the steady clock."""
    message.header.stamp = Time(nanoseconds=time.time_ns()).to_msg()
    sent = time.monotonic_ns()
    node.camera.publish(message)
    return sent


def _more_than(items: list[Any], count: int) -> bool:
    return len(items) > count


def _overload(node: _NodeUnderTest, seconds: int) -> dict[str, Any]:
    messages = [_image(0), _image(1)]
    warm = _latency(node)
    interval = warm["extraction_ms_p50"] / 1e3 / OVERLOAD
    first, done = len(node.listener.arrivals), len(node.extractions())
    memory, begin, sent = [], time.monotonic(), 0
    while (now := time.monotonic()) < begin + seconds:
        _show(node, messages[sent % 2])
        sent += 1
        if sent % OVERLOAD == 0:
            node.check()
            memory.append(node.resident_mb())
        time.sleep(max(0.0, begin + sent * interval - now))
    time.sleep(POLL)
    arrivals = node.listener.arrivals[first:]
    ages = []
    for _, wall, data in arrivals:
        stamp = Time.from_msg(deserialize_message(data, Features).header.stamp).nanoseconds
        ages.append((wall - stamp) / 1e6)
    extraction = [(end - start) / 1e6 for start, end in node.extractions()[done:]]
    typical = float(np.median(extraction))
    settled = memory[len(memory) // 4 :]
    return {
        "sent": sent,
        "received": len(arrivals),
        "age_ms_p50": float(np.percentile(ages, 50)),
        "age_ms_p95": float(np.percentile(ages, 95)),
        "age_ms_max": float(np.max(ages)),
        "late": int(np.sum(np.array(ages) > 2 * typical + 3)),
        "extraction_ms_p50": typical,
        "extraction_ms_max": float(np.max(extraction)),
        "rss_mb_start": settled[0],
        "rss_mb_end": settled[-1],
    }


def _message_building(kind: str) -> tuple[float, int]:
    """Median milliseconds from numpy to a message, and the descriptors' bytes."""
    random = np.random.default_rng(0)
    descriptors = random.standard_normal((1024, 256), np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    xy, scores = random.random((1024, 2), np.float32), random.random(1024, np.float32)
    found = Found(xy, scores, descriptors, SIZE)
    taken = []
    for _ in range(30):
        begin = time.perf_counter()
        message = to_message(Features, features_fields(found, Header(), "bench", kind))
        taken.append(time.perf_counter() - begin)
    return float(np.median(taken) * 1e3), len(message.descriptors)


def _image(seed: int) -> Image:
    picture = built_in_picture(SIZE, seed)
    message = Image(height=SIZE[0], width=SIZE[1], encoding="mono8", step=SIZE[1])
    message.data = array("B", picture.tobytes())
    return message
