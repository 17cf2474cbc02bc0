"""The real node with a clock around its extraction: `python -m … CLOCK_FILE --ros-args …`.

Each extraction appends a line to the file: when it began and when it ended, in nanoseconds of the
steady clock, which all processes of a machine share, and of how many images.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from superpoint_ros.features.extractor import Extractor, Features
from superpoint_ros.node.__main__ import main


def run(clock_file: str) -> int:
    """Run the node until it is interrupted; its exit status."""
    extract = Extractor.batch
    with open(clock_file, "a", encoding="ascii", buffering=1) as file:

        def timed(self: Extractor, images: Sequence[Any], masks: Any = None) -> list[Features]:
            begin = time.monotonic_ns()
            found = extract(self, images, masks)
            file.write(f"{begin} {time.monotonic_ns()} {len(images)}\n")
            return found

        Extractor.batch = timed  # type: ignore[method-assign]
        return main()


if __name__ == "__main__":
    sys.exit(run(sys.argv.pop(1)))
