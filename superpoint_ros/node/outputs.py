"""What goes out for one camera: features, matches, homographies, and pictures and markers for people."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Quaternion, Transform, Vector3
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import Image, PointCloud, PointCloud2
from visualization_msgs.msg import ImageMarker, MarkerArray

from superpoint_ros.bags.content import stamp_fields
from superpoint_ros.features.extractor import Features
from superpoint_ros.features.pose_fit import quaternion
from superpoint_ros.features.relative_pose import RelativePose as RelativePoseFound
from superpoint_ros.features.stereo import StereoMatches, StereoPoints
from superpoint_ros.frontend.debug_image import Trails, draw, numbers, segments
from superpoint_ros.frontend.messages import (
    features_fields,
    homography_fields,
    matches_fields,
    relative_pose_fields,
    stereo_matches_fields,
    to_message,
)
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.frontend.stamps import nanoseconds as nanoseconds_of
from superpoint_ros.frontend.track_points import TrackPoints
from superpoint_ros.frontend.tracker import Motion
from superpoint_ros.msg import FeatureMatches, HomographyStamped, RelativePose
from superpoint_ros.msg import Features as FeaturesMessage
from superpoint_ros.node.annotations import keypoint_marker, markers, motion_marker
from superpoint_ros.node.point_cloud import cloud
from superpoint_ros.node.qos import advertise
from superpoint_ros.node.track_cloud import track_cloud

Rays = Callable[[NDArray[np.float32], tuple[int, int]], NDArray[np.float64] | None]


@dataclass(frozen=True)
class Extracted:
    """What a Features message is made of.

    track_ids  (N,) int32, or None: without tracks
    rectified  (N, 2) pixels of the rectified image, or None
    """

    header: Any
    found: Features
    weights_id: str
    track_ids: NDArray[np.int32] | None
    rectified: NDArray[np.float32] | None


@dataclass(frozen=True)
class View:
    """What people may look at of one image.

    header   of the outputs
    picture  (H, W) uint8, grey
    latency  seconds since the image came in
    """

    header: Any
    picture: NDArray[np.uint8]
    found: Features
    motion: Motion
    latency: float


class Outputs:
    """One camera's publishers. A message that nobody subscribes to is never built, but for the latched keyframe.

    prefix      "~/" or "~/left/"
    on_matched  called when a subscriber of any of them comes or goes, as in `advertise`
    motion      whether relative poses are asked for
    stereo      whether it is the left camera of a pair
    """

    TYPES = {
        "features": FeaturesMessage,
        "matches": FeatureMatches,
        "homography": HomographyStamped,
        "keyframe": FeaturesMessage,
        "track_cloud": PointCloud,
        "debug_image": Image,
        "annotations/keypoints": ImageMarker,
        "annotations/motion": ImageMarker,
        "markers": MarkerArray,
    }
    MOTION = {"motion": RelativePose}
    STEREO = {"stereo_matches": FeatureMatches, "points": PointCloud2}

    LATCHED = ("keyframe",)

    def __init__(
        self,
        node: LifecycleNode,
        prefix: str,
        on_matched: Callable[[], None],
        motion: bool = False,
        stereo: bool = False,
    ) -> None:
        self._node = node
        self._trails = Trails()
        self.publishers: dict[str, Any] = {}
        types = {**self.TYPES, **(self.MOTION if motion else {}), **(self.STEREO if stereo else {})}
        try:
            for topic, message_class in types.items():
                latched = topic in self.LATCHED
                self.publishers[topic] = advertise(
                    node, message_class, f"{prefix}{topic}", latched=latched, on_matched=on_matched
                )
        except Exception:
            self.destroy()
            raise

    def destroy(self) -> None:
        """Take the topics back."""
        for publisher in self.publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)

    @property
    def subscribers(self) -> int:
        """How many there are, of all topics together."""
        return sum(publisher.get_subscription_count() for publisher in self.publishers.values())

    def publish_features(self, extracted: Extracted, values: Parameters) -> None:
        """Publish keypoints and descriptors, if that is switched on and listened to."""
        if values.publish_features and self._heard("features"):
            self._publish_as("features", extracted, values)

    def publish_keyframe(self, extracted: Extracted, values: Parameters) -> None:
        """Publish the features of a new keyframe, for those who come later, too."""
        self._publish_as("keyframe", extracted, values)

    def wants_track_cloud(self, values: Parameters) -> bool:
        """Whether a cloud of tracks is switched on and listened to."""
        return values.track_cloud != "none" and self._heard("track_cloud")

    def publish_track_cloud(self, header: Any, points: TrackPoints, values: Parameters) -> None:
        """Publish tracks in the layout of VINS."""
        self.publishers["track_cloud"].publish(track_cloud(header, points, values.track_cloud))

    def wants_matches(self, values: Parameters) -> bool:
        """Whether matches are switched on and listened to."""
        return values.publish_matches and self._heard("matches")

    def publish_motion(self, header: Any, motion: Motion, values: Parameters) -> None:
        """Publish matches and homography, if that is switched on and listened to; the homography last."""
        seconds, nanoseconds = stamp_fields(motion.reference_stamp or 0)
        reference_stamp = Time(sec=seconds, nanosec=nanoseconds)
        if motion.reference_stamp is not None and self.wants_matches(values):
            fields = matches_fields(motion, header, reference_stamp)
            self.publishers["matches"].publish(to_message(FeatureMatches, fields))
        if values.publish_homography and self._heard("homography"):
            fields = homography_fields(motion, header, reference_stamp)
            self.publishers["homography"].publish(to_message(HomographyStamped, fields))

    def wants_pose(self) -> bool:
        """Whether relative poses are asked for and listened to."""
        return "motion" in self.publishers and self._heard("motion")

    def publish_pose(self, header: Any, motion: Motion, pose: RelativePoseFound) -> None:
        """Publish the pose that a motion means."""
        seconds, nanoseconds = stamp_fields(motion.reference_stamp or 0)
        x, y, z, w = quaternion(pose.rotation)
        transform = Transform(rotation=Quaternion(x=x, y=y, z=z, w=w))
        transform.translation = Vector3(**dict(zip("xyz", pose.translation.tolist(), strict=True)))
        fields = relative_pose_fields(pose, header, Time(sec=seconds, nanosec=nanoseconds), transform)
        self.publishers["motion"].publish(to_message(RelativePose, fields))

    def wants_stereo(self) -> bool:
        """Whether anyone listens to stereo matches or points."""
        return self._heard("stereo_matches") or self._heard("points")

    def publish_stereo_matches(self, header: Any, right_stamp: Any, found: StereoMatches) -> None:
        """Publish the matches with the right camera, if they are listened to."""
        if self._heard("stereo_matches"):
            fields = stereo_matches_fields(found, header, right_stamp)
            self.publishers["stereo_matches"].publish(to_message(FeatureMatches, fields))

    def publish_points(self, header: Any, points: StereoPoints, found: Features, track_ids: NDArray[np.int32]) -> None:
        """Publish points in space, if they are listened to."""
        if self._heard("points"):
            self.publishers["points"].publish(cloud(header, points, found, track_ids))

    def show(self, view: View, rays: Rays) -> None:
        """Publish what people look at, if they do.

        rays  of pixels of an image of a size, x/z and y/z in the camera's frame; None without a calibration
        """
        header, found, motion = view.header, view.found, view.motion
        if self._heard("debug_image"):
            self.publishers["debug_image"].publish(self._debug_image(view))
        else:
            self._trails.clear()  # or a viewer that comes back would see jumps
        if self._heard("annotations/keypoints"):
            self.publishers["annotations/keypoints"].publish(keypoint_marker(header, found))
        if self._heard("annotations/motion"):
            self.publishers["annotations/motion"].publish(motion_marker(header, found, motion))
        if self._heard("markers"):
            keypoint_rays = rays(found.xy, found.size)
            motion_rays = rays(segments(found, motion).reshape(-1, 2), found.size)
            if keypoint_rays is not None and motion_rays is not None:
                self.publishers["markers"].publish(markers(header, found, motion, keypoint_rays, motion_rays))

    def _debug_image(self, view: View) -> Image:
        header, found, motion = view.header, view.found, view.motion
        stamp = nanoseconds_of(header.stamp)
        gap = (stamp - (motion.reference_stamp or 0)) / 1e9
        paths = self._trails.add(motion.track_ids, found.xy) if len(motion.track_ids) else []
        canvas = draw(view.picture, found, motion, paths, numbers(found, motion, gap, view.latency))
        height, width = found.size
        message = Image(header=header, height=height, width=width, encoding="bgr8", step=3 * width)
        data = array("B")
        data.frombytes(canvas.tobytes())
        message.data = data
        return message

    def _publish_as(self, topic: str, extracted: Extracted, values: Parameters) -> None:
        one = extracted
        fields = features_fields(
            one.found, one.header, one.weights_id, values.descriptor_type, one.track_ids, one.rectified
        )
        self.publishers[topic].publish(to_message(FeaturesMessage, fields))

    def _heard(self, topic: str) -> bool:
        """Whether anyone subscribes: building a message for nobody costs up to a millisecond."""
        return bool(self.publishers[topic].get_subscription_count() > 0)
