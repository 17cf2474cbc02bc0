"""What every answer of a node must be, whatever came in."""

from __future__ import annotations

import numpy as np

from soak.pictures import Mask
from superpoint_ros.frontend.messages import decode_descriptors
from superpoint_ros.msg import FeatureMatches, Features, HomographyStamped


class Failure(AssertionError):
    """Something that a node must not do."""


def check_mask(message: Features, masks: list[Mask]) -> None:
    """Failure for an image without a mask, or with keypoints where it is black.

    masks  in the order in which they were published; those that cannot be in use any more are taken out
    """
    while masks and masks[0].broken_by(np.array(message.x), message.width):
        del masks[0]
    if not masks:
        raise Failure("keypoints where the mask is black, or of an image that came before any mask")


def check_features(message: Features) -> None:
    """Failure unless every field is what Features.msg says."""
    x, y, scores = (np.array(values) for values in (message.x, message.y, message.scores))
    count = len(x)
    if not count == len(y) == len(scores) or len(message.track_ids) not in (0, count):
        raise Failure("arrays of a features message are of unequal length")
    if count and not (
        (np.isfinite(x) & (x >= -0.5) & (x <= message.width - 0.5)).all()
        and (np.isfinite(y) & (y >= -0.5) & (y <= message.height - 0.5)).all()
        and ((scores > 0) & (scores <= 1)).all()
        and (np.diff(scores) <= 0).all()
    ):
        raise Failure("keypoints outside of the image, or scores that are none or not in order")
    descriptors = decode_descriptors(message.descriptors, message.descriptor_dim, message.descriptor_type)
    if descriptors.shape != (count, message.descriptor_dim):
        raise Failure("descriptors of another number than the keypoints")
    if count and np.abs(np.linalg.norm(descriptors, axis=1) - 1).max() > 1e-3:
        raise Failure("descriptors of another length than one")
    if len(set(message.track_ids)) != len(message.track_ids):
        raise Failure("a track id is given twice")


def check_matches(message: FeatureMatches) -> None:
    """Failure unless every field is what FeatureMatches.msg says."""
    if not len(message.reference) == len(message.current) == len(message.similarity) == len(message.inlier):
        raise Failure("arrays of a matches message are of unequal length")
    if len(set(message.current)) != len(message.current) or len(set(message.reference)) != len(message.reference):
        raise Failure("a keypoint is matched twice")


def check_homography(message: HomographyStamped) -> None:
    """Failure unless the matrix is finite exactly when it is OK."""
    ok = message.status == HomographyStamped.OK
    if bool(np.isfinite(message.matrix).all()) != ok or message.inliers > message.matches:
        raise Failure(f"status {message.status} with matrix {message.matrix}")
