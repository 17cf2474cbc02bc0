"""At most so many frames a second."""

from __future__ import annotations

import math


class RateLimit:
    """Lets a frame of one camera through when it is due.

    The next is due a period after the last was due, not after it came: 20 of 30 Hz are 20, not 15, and a frame that
    comes late makes up for one that comes early.
    """

    def __init__(self) -> None:
        self._due = -math.inf

    def allows(self, now: float, rate: float) -> bool:
        """Whether a frame goes on.

        now   seconds, of any clock; one that has jumped back begins anew
        rate  Hz; 0: all
        """
        if rate <= 0:
            self._due = -math.inf
            return True
        period, late = 1 / rate, now - self._due
        if -period <= late < 0:
            return False
        self._due = (self._due if 0 <= late <= 2 * period else now) + period
        return True
