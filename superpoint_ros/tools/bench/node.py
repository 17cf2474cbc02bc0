"""`superpoint bench --node`: what the node adds to the extraction, over real DDS.

The node runs in a process of its own. Latency: one 640×480 image at a time, from the publisher's
call to the subscriber's callback with the serialised features, less the extraction between them; beside it what a node
takes that answers each image with a message it had ready (`echo_node`).
Overload: images at five times the rate at which the node extracts, at most FASTEST. Four cameras: how many images
go through in one batch when each camera has a fresh one.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import click
import numpy as np
from rclpy.serialization import deserialize_message
from rclpy.time import Time
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from superpoint_ros.features.extractor import Features as Found
from superpoint_ros.frontend.messages import DESCRIPTOR_TYPES, features_fields, to_message
from superpoint_ros.msg import Features
from superpoint_ros.network.engines.parity import built_in_picture
from superpoint_ros.tools.bench.node_process import NodeUnderTest
from superpoint_ros.tools.session import POLL, wait_until

OVERLOAD = 5
FASTEST = 120
"""Images a second of a camera, at most: where extraction takes two milliseconds, five times as many as that are more
than rclpy can take off DDS, and no camera sends."""
PAUSE = 0.05
"""Seconds between features and the next image: the node matches the features that it has published, and an image that
comes meanwhile waits, as under overload."""
CAMERAS = ("front", "back", "left", "right")


@dataclass(frozen=True)
class Plan:
    """What is measured.

    device, engine  of the node
    seconds         of overload, and of four cameras half as many
    size            height and width of the images
    frames          of which latencies are taken
    kinds           of descriptors
    """

    device: str = "auto"
    engine: str = "auto"
    seconds: int = 60
    size: tuple[int, int] = (480, 640)
    frames: int = 20
    kinds: Sequence[str] = tuple(DESCRIPTOR_TYPES)


def measure_node(plan: Plan) -> dict[str, Any]:
    """Run every measurement and print it as it comes; returns what the JSON holds."""
    report: dict[str, Any] = {"message_building_ms": {}, "latency": []}
    for kind in plan.kinds:
        taken, size = _message_building(kind)
        report["message_building_ms"][kind] = taken
        click.echo(f"building a message of 1024 {kind} descriptors, {size} bytes: {taken:.2f} ms")
    for kind in plan.kinds:
        with NodeUnderTest(plan.device, plan.engine, kind) as node:
            row = {"descriptor_type": kind, **_latency(node, plan)}
        with NodeUnderTest(plan.device, plan.engine, kind, module="echo_node") as node:
            row["floor_ms_p50"] = _latency(node, plan)["overhead_ms_p50"]
        report["latency"].append(row)
        click.echo(
            f"{kind}: latency less extraction p50 {row['overhead_ms_p50']:.2f} ms, p95 "
            f"{row['overhead_ms_p95']:.2f} ms (before {row['before_ms_p50']:.2f}, after "
            f"{row['after_ms_p50']:.2f}; of a node that does nothing {row['floor_ms_p50']:.2f}); "
            f"extraction {row['extraction_ms_p50']:.1f} ms, "
            f"{row['keypoints']} keypoints, {row['bytes']} bytes"
        )
    with NodeUnderTest(plan.device, plan.engine, plan.kinds[0]) as node:
        row = report["overload"] = _overload(node, plan)
    click.echo(
        f"{OVERLOAD} times as many images as can be extracted, at most {FASTEST} a second, {plan.seconds} s: "
        f"{row['sent']} sent, {row['received']} received; age p50 {row['age_ms_p50']:.1f} ms, p95 "
        f"{row['age_ms_p95']:.1f} ms, max {row['age_ms_max']:.1f} ms (extraction p50 "
        f"{row['extraction_ms_p50']:.1f} ms); {row['late']} of {row['received']} older than two "
        f"extractions and 3 ms; resident memory {row['rss_mb_start']:.1f} to "
        f"{row['rss_mb_end']:.1f} MB"
    )
    with NodeUnderTest(plan.device, plan.engine, plan.kinds[0], CAMERAS) as node:
        row = report["cameras"] = _four_cameras(node, plan)
    click.echo(
        f"{len(CAMERAS)} cameras, {row['seconds']:.0f} s: {row['batches']} batches of {row['images']} images, "
        f"{row['images_a_batch']:.2f} a batch, {row['full']} of all {len(CAMERAS)}; "
        f"features received {', '.join(map(str, row['received']))}"
    )
    return report


def _latency(node: NodeUnderTest, plan: Plan) -> dict[str, Any]:
    messages = [_image(plan.size, seed) for seed in (0, 1)]
    before, after, extraction = [], [], []
    node.wake(messages[0])
    for index in range(plan.frames):
        time.sleep(PAUSE)
        had, done = len(node.listener.arrivals), len(node.extractions())
        sent = node.show(messages[index % 2])
        wait_until(partial(_more_than, node.listener.arrivals, had), 60, "features", node.check)
        one = node.extractions()[done]
        before.append((one.begin - sent) / 1e6)
        after.append((node.listener.arrivals[-1][0] - one.end) / 1e6)
        extraction.append((one.end - one.begin) / 1e6)
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


def _more_than(items: list[Any], count: int) -> bool:
    return len(items) > count


def _overload(node: NodeUnderTest, plan: Plan) -> dict[str, Any]:
    messages = [_image(plan.size, seed) for seed in (0, 1)]
    warm = _latency(node, plan)
    interval = max(warm["extraction_ms_p50"] / 1e3 / OVERLOAD, 1 / FASTEST)
    first, done = len(node.listener.arrivals), len(node.extractions())
    memory, begin, sent = [], time.monotonic(), 0
    while (now := time.monotonic()) < begin + plan.seconds:
        node.show(messages[sent % 2])
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
    extraction = [(one.end - one.begin) / 1e6 for one in node.extractions()[done:]]
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


def _four_cameras(node: NodeUnderTest, plan: Plan) -> dict[str, Any]:
    """Each camera as fast as the node extracts from one, or as a camera can be."""
    messages = [_image(plan.size, seed) for seed in range(len(CAMERAS))]
    node.wake(messages[0])
    alone = max(np.median([(one.end - one.begin) / one.images for one in node.extractions()]) / 1e9, 1 / FASTEST)
    done = len(node.extractions())
    had = [len(listener.arrivals) for listener in node.listeners]
    begin, sent = time.monotonic(), 0
    while (now := time.monotonic()) < begin + plan.seconds / 2:
        for camera, message in enumerate(messages):
            node.show(message, camera)
        sent += 1
        node.check()
        time.sleep(max(0.0, begin + sent * alone - now))
    # the first goes with the first camera's image alone, as the node has nothing else to do
    batches = [one.images for one in node.extractions()[done + 1 :]]
    return {
        "seconds": plan.seconds / 2,
        "batches": len(batches),
        "images": sum(batches),
        "images_a_batch": float(np.mean(batches)),
        "full": batches.count(len(CAMERAS)),
        "received": [len(listener.arrivals) - before for listener, before in zip(node.listeners, had, strict=True)],
    }


def _message_building(kind: str) -> tuple[float, int]:
    """Median milliseconds from numpy to a message, and the descriptors' bytes."""
    random = np.random.default_rng(0)
    descriptors = random.standard_normal((1024, 256), np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    xy, scores = random.random((1024, 2), np.float32), random.random(1024, np.float32)
    found = Found(xy, scores, descriptors, (480, 640))
    taken = []
    for _ in range(30):
        begin = time.perf_counter()
        message = to_message(Features, features_fields(found, Header(), "bench", kind))
        taken.append(time.perf_counter() - begin)
    return float(np.median(taken) * 1e3), len(message.descriptors)


def _image(size: tuple[int, int], seed: int) -> Image:
    message = Image(height=size[0], width=size[1], encoding="mono8", step=size[1])
    message.data = array("B", built_in_picture(size, seed).tobytes())
    return message
