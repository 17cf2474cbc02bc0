"""Bags out: sqlite3 or mcap, with the definition of every type in them."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer

from superpoint_ros.bags.content import BagError
from superpoint_ros.bags.definitions import typestore

STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
VERSION: Literal[8] = 8
"""Of metadata.yaml: the newest that ROS 2 Humble reads, too."""
NEVER = QosTime(0, 0)
"""As a deadline, a lifespan or a lease: not set."""


class BagWriter:
    """A new bag: a folder with metadata.yaml.

    storage  a key of STORAGES

    Raises BagError if the folder is there already. Leaving it by an error leaves an unfinished bag behind, with all
    messages up to the last `flush`.
    """

    def __init__(self, path: Path, storage: str = "mcap") -> None:
        self.path = path
        self._storage = STORAGES[storage]
        self._store = typestore()

    def __enter__(self) -> BagWriter:
        if self.path.exists():
            raise BagError(f"{self.path}: exists already; bags are never overwritten")
        self._writer = Writer(self.path, version=VERSION, storage_plugin=self._storage)
        self._writer.open()
        self._connections: dict[str, Any] = {}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    def add_topic(self, name: str, kind: str, qos: Qos) -> None:
        """Announce a topic, type as in `sensor_msgs/msg/Image`; BagError for an unknown type."""
        if kind not in self._store.fielddefs:
            raise BagError(f"{self.path}: cannot record {name}, the definition of {kind} is not known")
        self._connections[name] = self._writer.add_connection(
            name, kind, typestore=self._store, offered_qos_profiles=[qos]
        )

    def write(self, topic: str, time: int, data: bytes) -> None:
        """Append a message: recording time in nanoseconds, and CDR."""
        self._writer.write(self._connections[topic], time, data)

    def flush(self) -> None:
        """Give what was written to the operating system, so that it survives the end of this process."""
        storage: Any = self._writer.storage
        if self._storage == StoragePlugin.SQLITE3:
            storage.conn.commit()
        else:
            storage.bio.flush()

    def encode(self, kind: str, **fields: Any) -> bytes:
        """CDR of a message of this type with these fields; nested messages come from `make`."""
        return bytes(self._store.serialize_cdr(self.make(kind, **fields), kind))

    def make(self, kind: str, **fields: Any) -> Any:
        """A message object, for a field of `encode`."""
        return self._store.types[kind](**fields)


def offered_qos(reliable: bool, depth: int) -> Qos:
    """A volatile, keep-last profile, as most publishers offer it; cameras often not reliable."""
    return Qos(
        QosHistory.KEEP_LAST,
        depth,
        QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
        QosDurability.VOLATILE,
        NEVER,
        NEVER,
        QosLiveliness.AUTOMATIC,
        NEVER,
        False,
    )
