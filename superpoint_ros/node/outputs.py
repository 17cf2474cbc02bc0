"""What goes out for one camera: features, matches and homographies."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from rclpy.time import Time

from superpoint_ros.features.extractor import Features
from superpoint_ros.msg import FeatureMatches, HomographyStamped
from superpoint_ros.msg import Features as FeaturesMessage
from superpoint_ros.node.messages import features_fields, homography_fields, matches_fields, to_message
from superpoint_ros.node.parameters import Parameters
from superpoint_ros.node.qos import advertise
from superpoint_ros.node.tracker import Motion


class Outputs:
    """One camera's publishers. A message that nobody subscribes to is never built.

    prefix  "~/" or "~/left/"
    """

    def __init__(self, node: LifecycleNode, prefix: str) -> None:
        self._node = node
        self.publishers: dict[str, Any] = {}
        for topic, message_class in (
            ("features", FeaturesMessage),
            ("matches", FeatureMatches),
            ("homography", HomographyStamped),
        ):
            self.publishers[topic] = advertise(node, message_class, f"{prefix}{topic}")

    def destroy(self) -> None:
        """Take the topics back."""
        for publisher in self.publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)

    def heard(self, topic: str) -> bool:
        """Whether anyone subscribes: building a message for nobody costs up to a millisecond."""
        return bool(self.publishers[topic].get_subscription_count() > 0)

    def publish(
        self,
        header: Any,
        found: Features,
        motion: Motion,
        rectified: NDArray[np.float32] | None,
        weights_id: str,
        values: Parameters,
    ) -> None:
        """Publish what is switched on and listened to, the homography last."""
        if values.publish_features and self.heard("features"):
            fields = features_fields(found, header, weights_id, values.descriptor_type, motion.track_ids, rectified)
            self.publishers["features"].publish(to_message(FeaturesMessage, fields))
        reference_stamp = Time(nanoseconds=motion.reference_stamp or 0).to_msg()
        if values.publish_matches and motion.reference_stamp is not None and self.heard("matches"):
            fields = matches_fields(motion, header, reference_stamp)
            self.publishers["matches"].publish(to_message(FeatureMatches, fields))
        if values.publish_homography and self.heard("homography"):
            fields = homography_fields(motion, header, reference_stamp)
            self.publishers["homography"].publish(to_message(HomographyStamped, fields))
