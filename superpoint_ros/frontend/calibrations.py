"""Which calibration belongs to an image: cameras may be calibrated anew, or move their region of interest."""

from __future__ import annotations

import threading
from typing import Any

from superpoint_ros.features.rectification import Calibration, Uncalibrated, calibration

KEPT = 64
"""CameraInfos in which that of an image is looked for."""
SURE = 3
"""Images in a row with a CameraInfo of their own stamp, after which the next is taken to have one, too."""


class Calibrations:
    """The last CameraInfos of one camera by stamp, safe to use from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._by_stamp: dict[int, Calibration | Uncalibrated] = {}
        self._read: tuple[Any, Calibration | Uncalibrated] | None = None
        self._newest = 0
        self._in_a_row = 0
        self._asked: int | None = None  # stamp of the image that was asked about last
        self._paired = False  # whether it is taken to have a CameraInfo of its own

    def add(self, info: Any) -> None:
        """Take a sensor_msgs/CameraInfo. One that cannot be used is told of when an image wants it."""
        values = _values(info)
        with self._changed:
            if self._read is None or self._read[0] != values:
                self._read = values, _calibration(info)
            self._newest = info.header.stamp.sec * 10**9 + info.header.stamp.nanosec
            self._by_stamp.pop(self._newest, None)
            self._by_stamp[self._newest] = self._read[1]
            while len(self._by_stamp) > KEPT:
                del self._by_stamp[next(iter(self._by_stamp))]
            self._changed.notify_all()

    @property
    def newest(self) -> int:
        """Stamp of the last one, nanoseconds."""
        return self._newest

    def of(self, stamp: int, wait: float = 0.0) -> Calibration | None:
        """That of the image with this stamp, nanoseconds: its own, or where there is none the last before it.

        wait  seconds for one that is still to come, if images have had one of their own lately

        However often an image is asked about, it counts and waits once. None before the first. Raises Uncalibrated with
        a sentence for one that cannot be used.
        """
        with self._changed:
            if not self._by_stamp:
                return None
            again, self._asked = stamp == self._asked, stamp
            if not again:
                self._paired = self._in_a_row >= SURE
                if self._paired and self._newest < stamp:
                    self._changed.wait_for(lambda: self._newest >= stamp, wait)
            found = self._by_stamp.get(stamp)
            if not again:
                self._in_a_row = 0 if found is None else self._in_a_row + 1
            newest = self._by_stamp[self._newest]
            if found is None and self._paired and any(each is not newest for each in self._by_stamp.values()):
                raise Uncalibrated("an image came without its CameraInfo, which differs from image to image")
            if found is None:
                before = [each for each in self._by_stamp if each <= stamp]
                found = self._by_stamp[max(before)] if before else newest
        if isinstance(found, Uncalibrated):
            raise found
        return found


def _calibration(info: Any) -> Calibration | Uncalibrated:
    try:
        return calibration(info)
    except Uncalibrated as error:
        return error
    except Exception as error:  # what a callback raises would end the node
        return Uncalibrated(f"CameraInfo cannot be read ({type(error).__name__}: {error})")


def _values(info: Any) -> tuple[Any, ...]:
    """All but the header. The message classes of Humble and Jazzy compare arrays wrongly: values are compared here."""
    roi = info.roi
    return (
        (info.height, info.width, info.distortion_model, info.binning_x, info.binning_y),
        (roi.x_offset, roi.y_offset, roi.height, roi.width),
        *(tuple(float(value) for value in array) for array in (info.d, info.k, info.r, info.p)),
    )
