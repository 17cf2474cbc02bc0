"""Features, matches, homographies and poses as the fields of our messages.

The fields are plain values and numpy arrays, so that they serve rclpy messages and bags written
without ROS alike; `to_message` makes the rclpy message of them.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # a subscriber that decodes descriptors should not load torch
    from superpoint_ros.features.extractor import Features
    from superpoint_ros.features.relative_pose import RelativePose
    from superpoint_ros.features.stereo import StereoMatches
    from superpoint_ros.frontend.tracker import Motion

DESCRIPTOR_TYPES = {"float32": 0, "float16": 1, "uint8": 2}
"""The constants of Features.msg."""

UINT8_SCALE = 256
"""Features.msg: q = clip(round(256 · v), −127, 127) + 128; few components pass ±0.3."""

ARRAY_TYPES = {"float32": "f", "float64": "d", "uint8": "B", "uint32": "I", "int32": "i"}


def features_fields(
    features: Features,
    header: Any,
    weights_id: str,
    descriptor_type: str = "float32",
    track_ids: NDArray[np.int32] | None = None,
    rectified: NDArray[np.float32] | None = None,
) -> dict[str, Any]:
    """The fields of Features.msg; `descriptor_type` is a key of DESCRIPTOR_TYPES.

    rectified  (N, 2) pixels of the rectified image, or None
    """
    if rectified is None:
        rectified = np.empty((0, 2), np.float32)
    return {
        "header": header,
        "height": features.size[0],
        "width": features.size[1],
        "x": features.xy[:, 0],
        "y": features.xy[:, 1],
        "scores": features.scores,
        "scale": features.scales,
        "descriptor_dim": features.descriptors.shape[1],
        "descriptor_type": DESCRIPTOR_TYPES[descriptor_type],
        "descriptors": encode_descriptors(features.descriptors, descriptor_type),
        "track_ids": np.empty(0, np.int32) if track_ids is None else track_ids,
        "weights_id": weights_id,
        "rectified_x": rectified[:, 0],
        "rectified_y": rectified[:, 1],
    }


def matches_fields(motion: Motion, header: Any, reference_stamp: Any) -> dict[str, Any]:
    """The fields of FeatureMatches.msg; `reference_stamp` is a builtin_interfaces/Time."""
    return {
        "header": header,
        "reference_stamp": reference_stamp,
        "reference": motion.matches[:, 0].astype(np.uint32),
        "current": motion.matches[:, 1].astype(np.uint32),
        "x": motion.current_xy[:, 0],
        "y": motion.current_xy[:, 1],
        "similarity": motion.similarity,
        "inlier": motion.homography.inliers.astype(np.uint8),
    }


def homography_fields(motion: Motion, header: Any, reference_stamp: Any) -> dict[str, Any]:
    """The fields of HomographyStamped.msg."""
    return {
        "header": header,
        "reference_stamp": reference_stamp,
        "matrix": motion.homography.matrix.reshape(9),
        "matches": len(motion.matches),
        "inliers": int(motion.homography.inliers.sum()),
        "rmse": float(motion.homography.rmse),
        "refined": bool(motion.homography.refined),
        "status": int(motion.homography.status),
    }


def stereo_matches_fields(found: StereoMatches, header: Any, right_stamp: Any) -> dict[str, Any]:
    """The fields of FeatureMatches.msg for a stereo pair: the header is the left image's, `right_stamp` the other's."""
    return {
        "header": header,
        "reference_stamp": right_stamp,
        "reference": found.matches[:, 1].astype(np.uint32),
        "current": found.matches[:, 0].astype(np.uint32),
        "x": found.right_xy[:, 0],
        "y": found.right_xy[:, 1],
        "similarity": found.similarity,
        "inlier": np.ones(len(found.matches), np.uint8),
    }


def relative_pose_fields(pose: RelativePose, header: Any, reference_stamp: Any, transform: Any) -> dict[str, Any]:
    """The fields of RelativePose.msg; `transform` is a geometry_msgs/Transform."""
    return {
        "header": header,
        "reference_stamp": reference_stamp,
        "transform": transform,
        "metric": pose.metric,
        "matches": len(pose.inliers),
        "inliers": int(pose.inliers.sum()),
        "rmse": float(pose.rmse),
        "homography_ratio": float(pose.homography_ratio),
        "status": int(pose.status),
    }


def encode_descriptors(descriptors: NDArray[np.float32], descriptor_type: str) -> NDArray[np.uint8]:
    """Descriptors (N, D) as in Features.msg: row-major, little-endian, (N · D · size,) uint8."""
    if descriptor_type == "uint8":
        scaled = np.rint(descriptors * np.float32(UINT8_SCALE)).clip(-127, 127) + 128
        return scaled.astype(np.uint8).reshape(-1)
    stored = descriptors.astype("<f2" if descriptor_type == "float16" else "<f4", copy=False)
    return np.ascontiguousarray(stored).reshape(-1).view(np.uint8)


def decode_descriptors(data: Any, descriptor_dim: int, descriptor_type: int) -> NDArray[np.float32]:
    """For subscribers: (N, D) float32 of unit length, from the fields of Features.msg."""
    data = np.frombuffer(data, np.uint8)
    if descriptor_type == DESCRIPTOR_TYPES["uint8"]:
        values = (data.astype(np.float32) - 128) / UINT8_SCALE
    else:
        half = descriptor_type == DESCRIPTOR_TYPES["float16"]
        values = data.view("<f2" if half else "<f4").astype(np.float32)
    values = values.reshape(-1, descriptor_dim)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.float32(1e-12))


def to_message(message_class: Any, fields: dict[str, Any]) -> Any:
    """An rclpy message with these fields.

    rclpy checks the elements of a list or numpy array one by one, 40 ms a megabyte, but takes an
    array.array as it is; a field of fixed length (the matrix) wants numpy.
    """
    message = message_class()
    for name, value in fields.items():
        if isinstance(value, np.ndarray) and isinstance(getattr(message, name), array):
            flat = array(ARRAY_TYPES[value.dtype.name])
            flat.frombytes(np.ascontiguousarray(value).view(np.uint8))  # type: ignore[arg-type]
            value = flat
        setattr(message, name, value)
    return message
