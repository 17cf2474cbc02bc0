"""Tracks as the sensor_msgs/PointCloud that VINS's estimators take on `feature`.

VINS-Mono's estimator_node reads the channels id, u, v and the velocity's x and y; the id holds the camera, too:
id · NUM_OF_CAM + camera, with NUM_OF_CAM = 1. VINS-Fusion's rosNodeTest reads id, camera, u, v, velocity, and three
more, of the true position, whenever there are more than five channels, so always: they are 0 here, and only drawn
there. Points are x, y and 1 for both.
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from geometry_msgs.msg import Point32
from numpy.typing import ArrayLike
from sensor_msgs.msg import ChannelFloat32, PointCloud

from superpoint_ros.frontend.track_points import TrackPoints


def track_cloud(header: Any, points: TrackPoints, layout: str) -> PointCloud:
    """The message of one camera's tracks.

    layout  "vins_mono" or "vins_fusion", whose camera is always 0: each of our cameras is an estimator's only one
    """
    (u, v), (speed_x, speed_y) = points.pixels.T, points.velocity.T
    nothing = np.zeros(len(points.ids))
    channels: list[tuple[str, ArrayLike]] = [("id", points.ids), ("u", u), ("v", v)]
    channels += [("velocity_x", speed_x), ("velocity_y", speed_y)]
    if layout == "vins_fusion":
        channels.insert(1, ("camera", nothing))
        channels += [("true_x", nothing), ("true_y", nothing), ("true_z", nothing)]
    message = PointCloud(header=header)
    message.points = [Point32(x=x, y=y, z=1.0) for x, y in points.normalised.tolist()]
    message.channels = [ChannelFloat32(name=name, values=_floats(values)) for name, values in channels]
    return message


def _floats(values: ArrayLike) -> array[float]:
    flat = array("f")
    flat.frombytes(np.ascontiguousarray(values, np.float32).tobytes())
    return flat
