"""Room for a features message in Fast DDS's shared memory.

A thousand float32 descriptors are a megabyte, and Fast DDS has half of one by default: the end of a message overwrites
its beginning, which is sent again when the subscriber asks for it, 10 ms later. Fast DDS reads its settings when a
process makes its first context: from the first variable of `THEIRS`, before version 3 (ROS 2 Humble and Jazzy) from the
second.
"""

from __future__ import annotations

import os
from pathlib import Path

PROFILES = Path(__file__).with_name("fastdds.xml")
THEIRS = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_BUILTIN_TRANSPORTS")
THEIR_FILES = ("DEFAULT_FASTDDS_PROFILES.xml", "DEFAULT_FASTRTPS_PROFILES.xml")
"""Variables, and files in the working folder, by which a user sets Fast DDS up."""


def make_room() -> None:
    """Have this process's Fast DDS use `fastdds.xml`, unless the user has set it up in any way."""
    if not any(name in os.environ for name in THEIRS) and not any(Path(name).exists() for name in THEIR_FILES):
        os.environ.update(dict.fromkeys(THEIRS[:2], str(PROFILES)))
