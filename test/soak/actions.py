"""What happens to a node in the field, one function a kind; each takes the rig and a random generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import rclpy
from lifecycle_msgs.msg import Transition
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import ImageMarker, MarkerArray

from robot import image_message
from soak.checks import Failure
from soak.pictures import CAMERAS, ENCODINGS, MASK_ENCODINGS, MASKS, SIZES, World
from soak.rig import LATCHED, SoakRig
from soak.services import call, set_parameters, transit
from superpoint_ros.msg import Features

Random = np.random.Generator
RELIABILITIES = (ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT)
DURABILITIES = (DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL)
VALID = {
    "max_keypoints": (50, 300, 1024),
    "detection_threshold": (0.005, 0.02, 0),
    "nms_radius": (2, 4),
    "border": (0, 4),
    "subpixel": (True, False),
    "resize": (120, 160, 200),
    "match_ratio": (1, 0.8),
    "homography_threshold": (1.0, 3),
    "reference": ("previous", "keyframe"),
    "tracks": (True, False),
    "descriptor_type": ("float32", "float16", "uint8"),
    "publish_homography": (True, False),
    "min_similarity": (-1, 0.6),
    "rate": (0, 10.0),
    "left.rate": (0, 5.0),
    "left.max_keypoints": (50, 300),
    "right.resize": (120, 160),
    "lazy": (True, False),
}
INVALID = {
    "max_keypoints": 0,
    "detection_threshold": 2.0,
    "resize": 3,
    "left.resize": 3,
    "reference": "next",
    "device": "cuda",
    "weights": "other.pth",
    "intensity_range": [2.0, 1.0],
    "tracks": "perhaps",
}


def new_size(rig: SoakRig, world: World, random: Random) -> None:
    """Another size of a camera's images."""
    world.size[_pick(random, CAMERAS)] = _pick(random, SIZES)


def new_encoding(rig: SoakRig, world: World, random: Random) -> None:
    """Another encoding of a camera's images."""
    world.encoding[_pick(random, CAMERAS)] = _pick(random, ENCODINGS)


def publisher_restart(rig: SoakRig, world: World, random: Random) -> None:
    """A driver dies and comes back."""
    rig.renew(_pick(random, CAMERAS), QoSProfile(depth=1))


def publisher_qos(rig: SoakRig, world: World, random: Random) -> None:
    """A driver comes back with other settings."""
    profile = QoSProfile(
        depth=int(random.integers(1, 10)),
        reliability=_pick(random, RELIABILITIES),
        durability=_pick(random, DURABILITIES),
    )
    rig.renew(_pick(random, CAMERAS), profile)


def new_calibration(rig: SoakRig, world: World, random: Random) -> None:
    """A camera is calibrated anew, moves its region of interest, or sends a CameraInfo that cannot be used."""
    camera = _pick(random, CAMERAS)
    height, width = world.size[camera]
    focal = float(random.choice([200, 300, 0, -1, np.nan]))
    info = CameraInfo(height=height, width=width)
    info.distortion_model = str(random.choice(["plumb_bob", "none", "equidistant", "rational_polynomial", "fancy", ""]))
    info.k = [focal, 0.0, width / 2, 0.0, focal, height / 2, 0.0, 0.0, 1.0]
    info.d = [float(value) for value in random.normal(0, 0.05, random.choice([0, 2, 4, 5, 8, 14]))]
    info.p = [float(value) for value in random.choice([0, 150, np.inf], 12)]
    info.roi = RegionOfInterest(x_offset=int(random.integers(9)), width=width, height=height)
    for _ in range(3):
        info.header.stamp = rig.client.get_clock().now().to_msg()
        rig.infos[camera].publish(info)


def live_parameters(rig: SoakRig, world: World, random: Random) -> None:
    """Parameters change while images are extracted."""
    name = _pick(random, list(VALID))
    value = _pick(random, VALID[name])
    (result,) = set_parameters(rig, {name: value})
    if not result.successful:
        raise Failure(f"{name} could not be set to {value}: {result.reason}")


def refused_parameters(rig: SoakRig, world: World, random: Random) -> None:
    """Values that are not allowed."""
    name = _pick(random, list(INVALID))
    (result,) = set_parameters(rig, {name: INVALID[name]})
    if result.successful or name not in result.reason:
        raise Failure(f"{name} was set to {INVALID[name]}, or the refusal has no word for it: {result.reason}")


def deactivate_and_activate(rig: SoakRig, world: World, random: Random) -> None:
    """A lifecycle manager pauses the node."""
    transit(rig, Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE)


def configure_anew(rig: SoakRig, world: World, random: Random) -> None:
    """Down to unconfigured and up again."""
    down = (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)
    transit(rig, *down, Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)


def other_inputs(rig: SoakRig, world: World, random: Random) -> None:
    """Configured anew, for raw or compressed images, with or without masks."""
    others = [each for each in product((False, True), repeat=2) if each != (rig.compressed, rig.masked)]
    configure_for(rig, world, random, *_pick(random, others))


def configure_for(rig: SoakRig, world: World, random: Random, compressed: bool, masked: bool) -> None:
    """Configured anew, for such images; with masks, which come only after some images."""
    values = {"image_transport": "compressed" if compressed else "raw", "use_mask_topic": masked}
    transit(rig, Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)
    for name, result in zip(values, set_parameters(rig, values), strict=True):
        if not result.successful:
            raise Failure(f"{name} could not be set to {values[name]}: {result.reason}")
    rig.expect(compressed, masked)
    rig.tried[f"inputs: {values['image_transport']}{', masks' if masked else ''}"] += 1
    transit(rig, Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
    if not masked:
        return
    rig.report()
    for camera in CAMERAS:
        _until_counted(rig, world, camera, "frames_unmasked", 0)
    for camera in CAMERAS:
        rig.mask(camera, _pick(random, MASKS), _pick(random, MASK_ENCODINGS))


def new_mask(rig: SoakRig, world: World, random: Random) -> None:
    """Another mask of a camera, at times after one that cannot be used, or one that nobody has asked for."""
    camera, encoding = _pick(random, CAMERAS), _pick(random, MASK_ENCODINGS)
    if not rig.masked:
        publisher = rig.client.create_publisher(Image, f"/{camera}/mask", LATCHED)
        publisher.publish(MASKS[0].message(encoding))
        _play(rig, world, 15)
        rig.client.destroy_publisher(publisher)
        rig.tried["mask: not asked for"] += 1
        return
    kind = min("unknown encoding", "another shape", "good", key=lambda kind: rig.tried[f"mask: {kind}"])
    rig.tried[f"mask: {kind}"] += 1
    if kind == "unknown encoding":  # the one before stays in use
        message = MASKS[0].message()
        message.encoding = "bgr9"
        rig.refused_mask(camera, message)
    elif kind == "another shape":  # none of its images can be used
        rig.report()
        before = rig.count(camera, "frames_bad")
        rig.masks[camera].publish(image_message(np.full((300, 200), 255, np.uint8)))
        _until_counted(rig, world, camera, "frames_bad", before)
    (current,) = rig.in_use[camera]
    rig.mask(camera, _pick(random, [mask for mask in MASKS if mask != current]), encoding)
    rig.until(
        lambda: len(rig.in_use[camera]) == 1,
        f"keypoints of camera {camera} where its mask is no longer black",
        again=lambda: rig.send(camera, world.image(camera)),
    )


def disable_and_enable(rig: SoakRig, world: World, random: Random) -> None:
    """By the service."""
    for data in (False, True):
        call(rig, SetBool, "/superpoint/enable", SetBool.Request(data=data))


def reset(rig: SoakRig, world: World, random: Random) -> None:
    """References and tracks are dropped."""
    call(rig, Trigger, "/superpoint/reset", Trigger.Request())


def subscribers_come_and_go(rig: SoakRig, world: World, random: Random) -> None:
    """Viewers, loggers, and one that asks for what the node does not offer."""
    camera = _pick(random, CAMERAS)
    profile = QoSProfile(depth=1, reliability=_pick(random, RELIABILITIES))
    if random.random() < 0.3:
        profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
    kinds = {
        "debug_image": Image,
        "annotations/keypoints": ImageMarker,
        "annotations/motion": ImageMarker,
        "markers": MarkerArray,
        "features": Features,
    }
    subscriptions = [
        rig.client.create_subscription(kind, f"/superpoint/{camera}/{name}", lambda message: None, profile)
        for name, kind in kinds.items()
    ]
    _play(rig, world, 15)
    for subscription in subscriptions:
        rig.client.destroy_subscription(subscription)


def nobody_listens(rig: SoakRig, world: World, random: Random) -> None:
    """A camera's subscribers go, and come back: it sleeps in between."""
    set_parameters(rig, {"lazy": True})
    camera = _pick(random, CAMERAS)
    rig.ignore(camera)
    rig.until(lambda: rig.images[camera].get_subscription_count() == 0, f"the sleep of camera {camera}")
    _play(rig, world, 15)
    rig.listen(camera)


def slow_subscriber(rig: SoakRig, world: World, random: Random) -> None:
    """One that asks for every message, reliably, and takes none."""
    asleep = rclpy.create_node("asleep", context=rig.context)
    for camera in CAMERAS:
        asleep.create_subscription(Features, f"/superpoint/{camera}/features", lambda message: None, 3)
    _play(rig, world, 30)
    asleep.destroy_node()


def stamps_jump(rig: SoakRig, world: World, random: Random) -> None:
    """A bag loops, or a driver sets its clock."""
    if random.random() < 0.5:
        rig.stamp += int(random.integers(100, 10_000))
        return
    rig.settle()
    rig.stamp = max(0, rig.stamp - int(random.integers(100, 10_000)))
    for camera in CAMERAS:  # from here on old stamps come again
        rig.sent[camera].clear()
        rig.answered[camera].clear()


def clock_jumps(rig: SoakRig, world: World, random: Random) -> None:
    """Simulated time begins, stands still, and jumps back."""
    publisher = rig.client.create_publisher(Clock, "/clock", 10)
    set_parameters(rig, {"use_sim_time": True})
    for seconds in (100, 200, 50, 51):
        message = Clock()
        message.clock.sec = seconds
        publisher.publish(message)
        _play(rig, world, 5)
    set_parameters(rig, {"use_sim_time": False})
    rig.client.destroy_publisher(publisher)


def flood(rig: SoakRig, world: World, random: Random) -> None:
    """A camera sends as fast as it can."""
    camera = _pick(random, CAMERAS)
    message = world.image(camera)
    for _ in range(100):
        rig.send(camera, message)
    rig.spin(0.2)


Action = Callable[[SoakRig, World, Random], None]
ACTIONS: tuple[Action, ...] = (
    new_size,
    new_encoding,
    publisher_restart,
    publisher_qos,
    new_calibration,
    live_parameters,
    refused_parameters,
    deactivate_and_activate,
    configure_anew,
    other_inputs,
    new_mask,
    disable_and_enable,
    reset,
    subscribers_come_and_go,
    nobody_listens,
    slow_subscriber,
    stamps_jump,
    clock_jumps,
    flood,
)


def _pick(random: Random, choices: Sequence[Any]) -> Any:
    """One of them; numpy's own choice would make numpy values of them."""
    return choices[random.integers(len(choices))]


def _play(rig: SoakRig, world: World, frames: int) -> None:
    """Good images of both cameras at 30 Hz, with CameraInfos."""
    for _ in range(frames):
        for camera in CAMERAS:
            rig.send(camera, world.image(camera))
        rig.spin(1 / 30)


def _until_counted(rig: SoakRig, world: World, camera: str, key: str, before: int) -> None:
    """Send good images until the diagnostics count some of them there."""
    rig.until(
        lambda: rig.count(camera, key) > before,
        f"images of camera {camera} among {key}",
        again=lambda: rig.send(camera, world.image(camera)),
    )
