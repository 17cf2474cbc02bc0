"""Stereo points as sensor_msgs/PointCloud2."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField

from superpoint_ros.features.extractor import Features
from superpoint_ros.features.stereo import StereoPoints

COVARIANCE = ("xx", "xy", "xz", "yy", "yz", "zz")
POINT = np.dtype(
    [(name, "<f4") for name in ("x", "y", "z", "score")]
    + [("track_id", "<i4"), ("keypoint", "<u4")]
    + [(f"cov_{name}", "<f4") for name in COVARIANCE]
)
TYPES = {"<f4": PointField.FLOAT32, "<i4": PointField.INT32, "<u4": PointField.UINT32}


def cloud(header: Any, points: StereoPoints, found: Features, track_ids: NDArray[np.int32]) -> PointCloud2:
    """One point for each row of `points`, in its order.

    track_ids  (N,) of `found`, or empty: then -1
    """
    rows, records = points.rows, np.empty(len(points.rows), POINT)
    for axis, name in enumerate("xyz"):
        records[name] = points.xyz[:, axis]
    records["score"] = found.scores[rows]
    records["track_id"] = track_ids[rows] if len(track_ids) else -1
    records["keypoint"] = rows
    for name in COVARIANCE:
        records[f"cov_{name}"] = points.covariance[:, "xyz".index(name[0]), "xyz".index(name[1])]
    message = PointCloud2(header=header, height=1, width=len(rows), is_dense=True)
    message.fields = [
        PointField(name=name, offset=offset, datatype=TYPES[kind.str], count=1)
        for name, (kind, offset, *_) in (POINT.fields or {}).items()
    ]
    message.point_step, message.row_step = POINT.itemsize, records.nbytes
    data = array("B")
    data.frombytes(records.tobytes())
    message.data = data
    return message
