"""An mcap file, whole or not: one record after the other, and past damage to the next that makes sense.

Format: https://mcap.dev/spec. A record is an opcode, a length of 8 bytes and as many bytes; a chunk holds records
again, compressed. The index at the end is not relied on: a file that was never finished has none.
"""

from __future__ import annotations

import heapq
import mmap
import re
import struct
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat, Qos
from rosbags.rosbag2.metadata import parse_qos

from superpoint_ros.bags.compression import decompress
from superpoint_ros.bags.content import NEVER_STARTED, BagError, Topic, full_type

MAGIC = b"\x89MCAP0\r\n"
FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, STATISTICS, LAST = 0x02, 0x03, 0x04, 0x05, 0x06, 0x0B, 0x0F
HEAD, MESSAGE_HEAD, CHUNK_HEAD, FOOTER_SIZE = 9, 22, 32, 20
"""Bytes of a record before its content, a message before its data, a chunk before its compression, and a footer."""
CHUNK_AT = re.compile(rb"\x06.{5}\0{3}.{28}(?:\0{4}|\x03\0{3}lz4|\x04\0{3}zstd)", re.DOTALL)
MESSAGE_AT = re.compile(rb"\x05.{4}\0{4}.{22}\0", re.DOTALL)
"""What a chunk, and a message with CDR in it, look like wherever they begin."""
WEEK = 7 * 86_400_000_000_000
"""Nanoseconds: what looks like a message but was recorded so long before or after the last one is none."""
FORMATS = {
    "ros2msg": MessageDefinitionFormat.MSG,
    "ros2idl": MessageDefinitionFormat.IDL,
    "omgidl": MessageDefinitionFormat.IDL,
}
Bytes = bytes | mmap.mmap


class McapFile:
    """One mcap file. Raises BagError for what is none.

    topics       name -> Topic
    definitions  type -> definition
    start        nanoseconds, of the first message, or NEVER_STARTED
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.definitions: dict[str, MessageDefinition] = {}
        self._damage: dict[tuple[int, int], str] = {}
        self._schemas: dict[int, str] = {}
        self._channels: dict[int, tuple[str, str, Qos | None]] = {}
        self._others: dict[int, tuple[str, str, str]] = {}
        self._counts: Counter[int] = Counter()
        self._sources: list[tuple[int, int, int]] = []  # first time, last time, offset of a chunk or message
        self._time = -1
        with path.open("rb") as file:
            try:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError:
                raise BagError(f"{path}: not a readable bag; the file is empty") from None
        if self._data[: len(MAGIC)] != MAGIC:
            self._data.close()
            raise BagError(f"{path}: not a readable bag; it does not begin as an mcap file does")
        self._index()
        # an empty chunk says that it begins at 0, as does one that was recorded then
        begins = (first for first, last, offset in self._sources if last or any(self._messages_at(offset)))
        self.start = min(begins, default=NEVER_STARTED)
        self.topics: dict[str, Topic] = {}
        for channel, (name, kind, qos) in self._channels.items():
            before = self.topics[name].count if name in self.topics else 0
            self.topics[name] = Topic(name, kind, self._counts[channel] + before, qos)

    @property
    def others(self) -> dict[str, str]:
        """Topics whose messages are not CDR, and in a few words what they are instead."""
        return {
            name: f"{kind}, encoded as {encoding}" if kind else f"encoded as {encoding}"
            for name, kind, encoding in self._others.values()
        }

    @property
    def damage(self) -> list[str]:
        """What could not be read so far, a few words each."""
        return [text for _, text in sorted(self._damage.items())]

    def close(self) -> None:
        """Give the file back."""
        self._data.close()

    def messages(
        self, names: Collection[str], start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[str, int, bytes]]:
        """(topic, time, data) of these topics in order of time, from `start` to before `stop` (nanoseconds)."""
        wanted = {channel: name for channel, (name, _, _) in self._channels.items() if name in names}
        first, end = -1 if start is None else start, 1 << 64 if stop is None else stop
        waiting: list[tuple[int, int, str, bytes]] = []  # what is later than the beginning of the next chunk
        number = 0
        for begin, last, offset in sorted(self._sources):
            if last < first or begin >= end:
                continue
            while waiting and waiting[0][0] < begin:
                time, _, name, data = heapq.heappop(waiting)
                yield name, time, data
            for channel, time, data in self._messages_at(offset):
                if channel in wanted and first <= time < end:
                    heapq.heappush(waiting, (time, number, wanted[channel], data))
                    number += 1
        while waiting:
            time, _, name, data = heapq.heappop(waiting)
            yield name, time, data

    def _index(self) -> None:
        """Find all chunks and messages, the channels and their numbers of messages."""
        counted, finished, data = False, False, self._data
        for opcode, begin, end in self._records(data, len(MAGIC), len(data), 0):
            if opcode == CHUNK:
                first, last = struct.unpack_from("<QQ", data, begin)
                self._sources.append((first, last, begin - HEAD))
            elif opcode == MESSAGE:
                self._sources.append((self._time, self._time, begin - HEAD))
            elif opcode == STATISTICS:
                counted = bool(self._channels) and self._read_statistics(data[begin:end])
            elif opcode == FOOTER:
                finished = True
                break
            else:
                self._read_names(opcode, data[begin:end])
        if not finished and not self._damage:
            self._damage[0, len(data)] = "it was never finished"
        if not counted or self._damage:
            self._counts.clear()
            for _, _, offset in self._sources:
                self._counts.update(channel for channel, _, _ in self._messages_at(offset))

    def _records(self, data: Bytes, position: int, size: int, chunk: int) -> Iterator[tuple[int, int, int]]:
        """Opcode, begin and end of the content of each record, up to the footer; what is broken is skipped.

        chunk  offset of the chunk that `data` was in, or 0 for the file itself
        """
        while position < size:
            if position + HEAD <= size:
                opcode, length = struct.unpack_from("<BQ", data, position)
                begin, end = position + HEAD, position + HEAD + length
                if 0 < opcode <= LAST and end <= size and self._makes_sense(data, opcode, begin, end):
                    yield opcode, begin, end
                    if opcode == FOOTER:
                        return
                    position = end
                    continue
                if opcode == CHUNK and end > size and CHUNK_AT.match(data, position):
                    # cut off within a chunk, whose first messages may be there
                    self._damage[chunk, position] = f"cut off at byte {size}"
                    yield opcode, begin, size
                    return
            if chunk and "cut off" in self._damage.get((0, chunk), ""):
                return
            following = self._next(data, position + 1, size, chunk)
            where = f"bytes {position} to {following}" + (f" of the chunk at byte {chunk}" if chunk else "")
            self._damage[chunk, position] = f"{where} are unreadable"
            position = following

    def _makes_sense(self, data: Bytes, opcode: int, begin: int, end: int) -> bool:
        if opcode == CHUNK:
            return end - begin >= CHUNK_HEAD and CHUNK_AT.match(data, begin - HEAD) is not None
        if opcode == FOOTER:
            return end - begin == FOOTER_SIZE
        if opcode != MESSAGE:
            return True
        if end - begin < MESSAGE_HEAD:
            return False
        channel, _, time = struct.unpack_from("<HIQ", data, begin)
        if (self._channels or self._others) and channel not in self._channels and channel not in self._others:
            return False
        self._time = time
        return True

    def _next(self, data: Bytes, position: int, size: int, chunk: int) -> int:
        """Where the next chunk or message begins, or `size`."""
        found = size
        for match in CHUNK_AT.finditer(data, position, size) if not chunk else ():
            (length,) = struct.unpack_from("<Q", data, match.start() + 1)
            if match.end() + 8 <= size:
                (compressed,) = struct.unpack_from("<Q", data, match.end())
                if match.end() + 8 + compressed == match.start() + HEAD + length:
                    found = match.start()
                    break
        for match in MESSAGE_AT.finditer(data, position, found):
            length, channel, _, time = struct.unpack_from("<QHIQ", data, match.start() + 1)
            near = self._time < 0 or abs(time - self._time) < WEEK
            if channel in self._channels and near and MESSAGE_HEAD < length <= size - match.start() - HEAD:
                return match.start()
        return found

    def _messages_at(self, offset: int) -> Iterator[tuple[int, int, bytes]]:
        """(channel, time, data) of the message there, or of all messages of the chunk there."""
        (opcode,), begin = self._data[offset : offset + 1], offset + HEAD
        if opcode == MESSAGE:
            (length,) = struct.unpack_from("<Q", self._data, offset + 1)
            yield _message(self._data, begin, begin + length)
            return
        content, found = self._content(offset), []
        for kind, begin, end in self._records(content, 0, len(content), offset):
            if kind == MESSAGE:
                found.append(_message(content, begin, end))
            else:
                self._read_names(kind, content[begin:end])
        (first,) = struct.unpack_from("<Q", self._data, offset + HEAD)
        if found and first != min(time for _, time, _ in found):
            self._damage[offset, -2] = f"chunk at byte {offset}: its time is wrong, it may be out of order"
        yield from found

    def _content(self, offset: int) -> bytes:
        """A chunk's records, as many as can be had."""
        try:
            first, last, size, crc, length = struct.unpack_from("<QQQII", self._data, offset + HEAD)
            begin = offset + HEAD + CHUNK_HEAD + length
            compression = self._data[begin - length : begin].decode("ascii", "replace")
            (compressed,) = struct.unpack_from("<Q", self._data, begin)
        except struct.error:
            return b""  # cut off, which has been said
        packed = self._data[begin + 8 : begin + 8 + compressed]
        content, problem = decompress(packed, compression)
        if not problem and crc and zlib.crc32(content) != crc:
            problem = "a checksum is wrong, some of its messages may be"
        if not problem and len(content) != size:
            problem = f"it has {len(content)} bytes instead of {size}"
        if problem and len(packed) == compressed:
            self._damage[offset, -1] = f"chunk at byte {offset}: {problem}"
        self._time = first if self._time < 0 else self._time
        return content

    def _read_names(self, opcode: int, record: bytes) -> None:
        """Learn a schema or a channel."""
        try:
            if opcode == SCHEMA:
                (key,) = struct.unpack_from("<H", record)
                name, encoding, text = _strings(record, 2, 3)
                self._schemas[key] = full_type(name)
                if encoding in FORMATS:
                    self.definitions[full_type(name)] = MessageDefinition(FORMATS[encoding], text)
            elif opcode == CHANNEL:
                key, schema = struct.unpack_from("<HH", record)
                topic, encoding = _strings(record, 4, 2)
                if encoding != "cdr":
                    self._others[key] = (topic, self._schemas.get(schema, ""), encoding or "nothing that it names")
                elif schema in self._schemas:
                    self._channels[key] = (topic, self._schemas[schema], _qos(record))
        except (struct.error, UnicodeDecodeError):
            pass  # they come twice, in a chunk and at the end; a topic without is missed where it is asked for

    def _read_statistics(self, record: bytes) -> bool:
        try:
            for position in range(46, len(record), 10):
                channel, count = struct.unpack_from("<HQ", record, position)
                self._counts[channel] = count
        except struct.error:
            return False
        return True


def _message(data: Bytes, begin: int, end: int) -> tuple[int, int, bytes]:
    channel, _, time = struct.unpack_from("<HIQ", data, begin)
    return channel, time, bytes(data[begin + MESSAGE_HEAD : end])


def _strings(record: bytes, position: int, count: int) -> list[str]:
    """So many strings, each after its length."""
    found = []
    for _ in range(count):
        (length,) = struct.unpack_from("<I", record, position)
        position += 4 + length
        if position > len(record):
            raise struct.error("a string ends beyond its record")
        found.append(record[position - length : position].decode())
    return found


def _qos(channel: bytes) -> Qos | None:
    """The first profile in a channel's metadata, a map of strings."""
    topic, encoding = _strings(channel, 4, 2)
    begin = 4 + 4 + len(topic.encode()) + 4 + len(encoding)
    (length,) = struct.unpack_from("<I", channel, begin)
    try:
        entries = [_strings(channel, begin + 4, 2)] if length else []
        profiles = [profile for key, value in entries if key == "offered_qos_profiles" for profile in parse_qos(value)]
    except Exception:
        return None  # QoS is a convenience; rosbags raises several errors for what it does not know
    return profiles[0] if profiles else None
