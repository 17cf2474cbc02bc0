"""Bags (rosbag2, sqlite3 or mcap): which image topics there are, messages in and messages out.

Nothing here needs ROS. Messages stay the bytes they are on the wire (CDR), because that is what a
bag holds, what a publisher takes and what a subscriber can deliver; `BagReader.decode` makes an
object of the few that someone reads.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.interfaces import (
    ConnectionExtRosbag2,
    MessageDefinitionFormat,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import get_types_from_idl, get_types_from_msg

from superpoint_ros.tools.definitions import typestore

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"

NEVER = QosTime(0, 0)
"""As a deadline, a lifespan or a lease: not set."""


class BagError(ValueError):
    """A bag that cannot be read or written; the text names the file and what was found."""


@dataclass(frozen=True)
class Topic:
    """A topic of a bag: type as in `sensor_msgs/msg/Image`, number of messages, offered QoS."""

    name: str
    type: str
    count: int
    qos: Qos | None = None


@dataclass(frozen=True)
class Message:
    """A message as it lies in a bag.

    time  nanoseconds, when it was recorded
    data  CDR, with its encapsulation header
    """

    topic: Topic
    time: int
    data: bytes


class BagReader:
    """A bag open for reading: a folder with metadata.yaml, or a single .mcap or .db3 file.

    Raises BagError on entering, or while iterating, for what cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._store = typestore()

    def __enter__(self) -> BagReader:
        if not self.path.exists():
            raise BagError(f"{self.path}: no such bag")
        try:
            self._reader = Reader(self.path)
            self._reader.open()
        except Exception as error:
            # whatever is broken: rosbags raises its own errors, those of sqlite3, struct, yaml, zstd
            raise BagError(
                f"{self.path}: not a readable bag ({_sentence(error)}); "
                "expected a rosbag2 folder with metadata.yaml, or an .mcap or .db3 file"
            ) from None
        connections = self._reader.connections
        self.topics = {
            name: Topic(name, _full_type(info.msgtype), info.msgcount, _qos(info.connections[0].ext))
            for name, info in self._reader.topics.items()
            if info.msgtype is not None
        }
        self._definitions = {_full_type(each.msgtype): each.msgdef for each in connections}
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.close()

    def image_topics(self) -> list[Topic]:
        """Raw and compressed image topics, by name."""
        found = [topic for topic in self.topics.values() if topic.type in (IMAGE, COMPRESSED_IMAGE)]
        return sorted(found, key=lambda topic: topic.name)

    def image_topic(self, name: str | None) -> Topic:
        """The image topic of this name, or the only one; BagError lists those there are."""
        topics = self.image_topics()
        for topic in topics:
            if name in (topic.name, topic.name.lstrip("/")) or (name is None and len(topics) == 1):
                return topic
        there = "; ".join(f"{topic.name} ({topic.type}, {topic.count} messages)" for topic in topics)
        there = f"its image topics are: {there}" if topics else self._without_images()
        if name is None:
            raise BagError(f"{self.path}: {'which topic? ' if topics else ''}{there}")
        other = self.topics.get(name)
        problem = f"{name} is a topic of {other.type}" if other else f"there is no topic {name}"
        raise BagError(f"{self.path}: {problem}; {there}")

    def messages(
        self, topics: Collection[str] = (), start: int | None = None, stop: int | None = None
    ) -> Iterator[Message]:
        """Messages in order of time, of these topics or of all.

        From `start` to before `stop`, in nanoseconds. Raises BagError where the file turns out to be
        truncated or corrupt.
        """
        names = set(topics or self.topics) & set(self.topics)
        wanted = [each for each in self._reader.connections if each.topic in names]
        if not wanted:
            return
        read = 0
        messages = self._reader.messages(wanted, start, stop)
        while True:
            try:
                connection, time, data = next(messages)
            except StopIteration:
                return
            except Exception as error:
                # as in __enter__
                raise BagError(f"{self.path}: unreadable after {read} messages ({_sentence(error)})") from None
            read += 1
            yield Message(self.topics[connection.topic], time, bytes(data))

    def start_time(self) -> int:
        """Nanoseconds, of the first message."""
        return int(self._reader.start_time)

    def decode(self, message: Message) -> Any:
        """The message as an object with the fields of its type; arrays are numpy's.

        Raises BagError if its type is not known, or its bytes are not a message of that type.
        """
        kind = message.topic.type
        try:
            if kind not in self._store.fielddefs:
                self._register(kind)
            return self._store.deserialize_cdr(message.data, kind)
        except Exception as error:
            # a broken message ends in struct.error, IndexError, UnicodeDecodeError, rosbags' own …
            raise BagError(
                f"{self.path}: a message on {message.topic.name} at {message.time} ns "
                f"is not a {kind} ({_sentence(error)})"
            ) from None

    def _register(self, kind: str) -> None:
        """Learn a type from the definition in the bag."""
        definition = self._definitions[kind]
        if definition.format == MessageDefinitionFormat.NONE:
            raise BagError("its definition is not in the bag")
        parse = get_types_from_idl if definition.format == MessageDefinitionFormat.IDL else None
        types = parse(definition.data) if parse else get_types_from_msg(definition.data, kind)
        known = self._store.fielddefs
        self._store.register({name: fields for name, fields in types.items() if name not in known})

    def _without_images(self) -> str:
        others = ", ".join(f"{topic.name} ({topic.type})" for topic in self.topics.values())
        return f"it has no image topic, only {others}" if others else "it has no topics at all"


class BagWriter:
    """A new mcap bag (a folder with metadata.yaml), with the definition of every type in it.

    Raises BagError if the folder is there already. Leaving it by an error leaves an unfinished bag
    behind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._store = typestore()

    def __enter__(self) -> BagWriter:
        if self.path.exists():
            raise BagError(f"{self.path}: exists already; bags are never overwritten")
        self._writer = Writer(self.path, version=9, storage_plugin=StoragePlugin.MCAP)
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


def header_stamp(data: bytes) -> int:
    """Nanoseconds: the stamp of a message that begins with a std_msgs/Header, read from its bytes.

    CDR: four bytes of encapsulation, whose second says the byte order, then int32 seconds, uint32
    nanoseconds. Raises BagError for fewer bytes than that.
    """
    if len(data) < 12:
        raise BagError(f"a message of {len(data)} bytes is too short for a header")
    seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def stamp_nanoseconds(stamp: Any) -> int:
    """Nanoseconds of a builtin_interfaces/Time."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def _full_type(name: str | None) -> str:
    """`sensor_msgs/Image`, as older tools write it, is `sensor_msgs/msg/Image`."""
    package, _, rest = (name or "").partition("/")
    return f"{package}/msg/{rest}" if rest and "/" not in rest else (name or "")


def _qos(ext: Any) -> Qos | None:
    profiles = ext.offered_qos_profiles if isinstance(ext, ConnectionExtRosbag2) else []
    return profiles[0] if profiles else None


def _sentence(error: Exception) -> str:
    text = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else ""
    return text or type(error).__name__
