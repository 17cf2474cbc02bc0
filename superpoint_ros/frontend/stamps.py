"""The stamps of a camera's images: in nanoseconds, and whether they have begun anew."""

from __future__ import annotations

from typing import Any

JUMP = 1_000_000_000
"""Nanoseconds that a camera's stamps go back when a bag loops, and not when a driver sends frames out of order."""


def nanoseconds(stamp: Any) -> int:
    """Of a builtin_interfaces/Time. Raises ValueError with a sentence if it is negative, as does rclpy's Time."""
    total = int(stamp.sec) * 10**9 + int(stamp.nanosec)
    if total < 0:
        raise ValueError(f"stamp is {total / 1e9:.3f} s, before the epoch")
    return total


def jumped_back(last: int, stamp: int) -> bool:
    """Whether a camera's stamps begin anew at this one, so that what is remembered of the frames before is void.

    last   nanoseconds, of the frame that came before
    stamp  nanoseconds; a frame that is merely late belongs to those before it
    """
    return stamp <= last - JUMP
