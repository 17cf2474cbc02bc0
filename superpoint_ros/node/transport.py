"""Room for a features message in Fast DDS's shared memory.

A thousand float32 descriptors are a megabyte, and Fast DDS has half of one by default: the end of a message overwrites
its beginning, which is sent again when the subscriber asks for it, 10 ms later. Fast DDS reads its settings when a
process makes its first context.
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
        os.environ[variable()] = str(PROFILES)


def variable() -> str:
    """Which of the first two Fast DDS reads: version 2 (ROS 2 Humble, Jazzy) the older, of which Kilted would warn."""
    folders = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep))
    older = any(any(Path(folder).glob("libfastrtps.so*")) for folder in folders)  # version 3 is libfastdds.so
    return THEIRS[1] if older else THEIRS[0]
