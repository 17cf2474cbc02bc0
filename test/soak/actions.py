"""What happens to a node in the field, one function a kind; each takes the rig and a random generator."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import ImageMarker, MarkerArray

from robot import image_message, photograph, shifted
from soak.rig import CAMERAS, Failure, SoakRig
from superpoint_ros.msg import Features

Random = np.random.Generator
RELIABILITIES = (ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT)
DURABILITIES = (DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL)
SIZES = ((240, 320), (200, 264), (120, 160), (241, 319), (480, 640))
ENCODINGS = ("mono8", "8UC1", "bgr8", "rgb8", "bgra8", "8UC3", "mono16", "16UC1", "32FC1", "bayer_rggb8", "yuv422_yuy2")
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


class World:
    """What the cameras look at now: the size and encoding of each changes, and the scene moves."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._pictures = {size: photograph(size) for size in SIZES}
        self.size = dict.fromkeys(CAMERAS, SIZES[0])
        self.encoding = dict.fromkeys(CAMERAS, "mono8")

    def image(self, camera: str) -> Any:
        """A good image of that camera, of a scene that has moved a little."""
        x, y = self._random.integers(-6, 7, 2)
        picture = shifted(self._pictures[self.size[camera]], int(x), int(y))
        return encoded(picture, self.encoding[camera])


def encoded(picture: np.ndarray, encoding: str) -> Any:
    """sensor_msgs/Image of a grey picture in one of ENCODINGS."""
    channels = {"bgr8": 3, "rgb8": 3, "8UC3": 3, "bgra8": 4}.get(encoding, 1)
    pixels = np.repeat(picture[..., None], channels, axis=2) if channels > 1 else picture
    if encoding in ("mono16", "16UC1"):
        pixels = picture.astype(np.uint16) * 257
    elif encoding == "32FC1":
        pixels = picture.astype(np.float32) / 255
    elif encoding == "yuv422_yuy2":
        width = picture.shape[1] // 2 * 2
        pixels = np.stack([picture[:, :width], np.full_like(picture[:, :width], 128)], axis=2)
    message = image_message(picture, encoding=encoding)
    message.width = pixels.shape[1]
    message.step = pixels.strides[0] if pixels.flags.c_contiguous else pixels[0].nbytes
    message.data = array("B", np.ascontiguousarray(pixels).tobytes())
    return message


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
    (result,) = _set(rig, {name: value})
    if not result.successful:
        raise Failure(f"{name} could not be set to {value}: {result.reason}")


def refused_parameters(rig: SoakRig, world: World, random: Random) -> None:
    """Values that are not allowed."""
    name = _pick(random, list(INVALID))
    (result,) = _set(rig, {name: INVALID[name]})
    if result.successful or name not in result.reason:
        raise Failure(f"{name} was set to {INVALID[name]}, or the refusal has no word for it: {result.reason}")


def deactivate_and_activate(rig: SoakRig, world: World, random: Random) -> None:
    """A lifecycle manager pauses the node."""
    _transit(rig, Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE)


def configure_anew(rig: SoakRig, world: World, random: Random) -> None:
    """Down to unconfigured and up again."""
    down = (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)
    _transit(rig, *down, Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)


def disable_and_enable(rig: SoakRig, world: World, random: Random) -> None:
    """By the service."""
    for data in (False, True):
        _call(rig, SetBool, "/superpoint/enable", SetBool.Request(data=data))


def reset(rig: SoakRig, world: World, random: Random) -> None:
    """References and tracks are dropped."""
    _call(rig, Trigger, "/superpoint/reset", Trigger.Request())


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
    _set(rig, {"lazy": True})
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
    _set(rig, {"use_sim_time": True})
    for seconds in (100, 200, 50, 51):
        message = Clock()
        message.clock.sec = seconds
        publisher.publish(message)
        _play(rig, world, 5)
    _set(rig, {"use_sim_time": False})
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


def _set(rig: SoakRig, values: dict[str, Any]) -> Any:
    request = SetParameters.Request(parameters=[Parameter(n, value=v).to_parameter_msg() for n, v in values.items()])
    return _call(rig, SetParameters, "/superpoint/set_parameters", request).results


def _transit(rig: SoakRig, *transitions: int) -> None:
    for transition in transitions:
        request = ChangeState.Request(transition=Transition(id=transition))
        if not _call(rig, ChangeState, "/superpoint/change_state", request).success:
            raise Failure(f"transition {transition} failed")


def _call(rig: SoakRig, kind: Any, name: str, request: Any) -> Any:
    client = rig.client.create_client(kind, name)
    try:
        rig.until(client.service_is_ready, f"the service {name}")
        future = client.call_async(request)
        rig.until(future.done, f"an answer of {name}")
        return future.result()
    finally:
        rig.client.destroy_client(client)
