"""Bags in: topics, and messages in order of time, from sqlite3 or mcap, whole or damaged.

Messages stay the bytes they are on the wire (CDR), because that is what a publisher takes and a subscriber can deliver;
`BagReader.decode` makes an object of the few that someone reads.
"""

from __future__ import annotations

import heapq
import shutil
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.typesys import get_types_from_idl, get_types_from_msg
from rosbags.typesys.store import Typestore

from superpoint_ros.bags.compression import compression_of, decompress, unpack
from superpoint_ros.bags.content import COMPRESSED_IMAGE, IMAGE, NEVER_STARTED, BagError, Message, Topic, sentence
from superpoint_ros.bags.definitions import typestore
from superpoint_ros.bags.mcap import McapFile
from superpoint_ros.bags.metadata import ROS1_CONVERTER, Parts, find_parts
from superpoint_ros.bags.sqlite import SqliteFile
from superpoint_ros.printable import printable

PART_OF_DISK = 0.9
"""Of the free space, that a bag may take which is compressed as a whole."""


class BagReader:
    """A bag open for reading: a folder with or without metadata.yaml, or a single .mcap or .db3 file.

    What its files hold counts, not what metadata.yaml says of them. A damaged bag yields everything that can be read,
    and then `messages` raises BagError with the rest in one sentence.

    topics  name -> Topic
    notes   what is odd about it without loss, a few words each

    Raises BagError on entering for what cannot be read at all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _store(self) -> Typestore:
        return typestore()  # 0.1 s, and not everybody decodes

    def __enter__(self) -> BagReader:
        self._stack = ExitStack()
        self._damage: list[str] = []
        try:
            parts = find_parts(self.path)
            self.notes = list(parts.notes)
            self._counts = parts.counts
            self._files = self._open(parts)
        except OSError as error:
            self._stack.close()
            raise BagError(f"{self.path}: not a readable bag ({sentence(error)})") from None
        except BaseException:
            self._stack.close()
            raise
        self.topics: dict[str, Topic] = {}
        self._definitions: dict[str, MessageDefinition] = {}
        for file in self._files:
            self._definitions.update(file.definitions)
            for name, topic in file.topics.items():
                before = self.topics[name].count if name in self.topics else 0
                qos = topic.qos or parts.qos.get(name)
                self.topics[name] = replace(topic, count=topic.count + before, qos=qos)
        self._others = {name: text for file in self._files for name, text in file.others.items()}
        self._compare_with_metadata()
        if self._others:
            self.notes.append(f"it holds {self._other_topics()}, which cannot be read")
        self.notes = [printable(note) for note in self.notes]
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def damage(self) -> str:
        """What was found missing or unreadable so far, in one sentence; empty if nothing was."""
        found = [*self._damage, *(f"{file.path.name}: {text}" for file in self._files for text in file.damage)]
        shown = "; ".join(found[:4])
        return f"{shown}; and {len(found) - 4} more" if len(found) > 4 else shown

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
        there = f"{there} (damaged: {self.damage})" if self.damage else there
        if name is None:
            raise BagError(f"{self.path}: {'which topic? ' if topics else ''}{there}")
        other = self.topics.get(name)
        problem = f"{name} is a topic of {other.type}" if other else f"there is no topic {name}"
        raise BagError(f"{self.path}: {problem}; {there}")

    def messages(
        self, topics: Collection[str] = (), start: int | None = None, stop: int | None = None
    ) -> Iterator[Message]:
        """Messages in order of time, of these topics or of all.

        From `start` to before `stop`, in nanoseconds. Raises BagError after the last message that could be read, if the
        bag is truncated, corrupt or holds fewer than its metadata says.
        """
        names = set(topics or self.topics) & set(self.topics)
        read: Counter[str] = Counter()
        for time, name, data in self._merged(names, start, stop):
            compression = compression_of(data)
            if compression:
                data, problem = decompress(data, compression)
                if problem:
                    self._say(f"a message on {name} at {time} ns: {problem}")
                    continue
            read[name] += 1
            yield Message(self.topics[name], time, data)
        if start is None and stop is None:
            for name in sorted(names):
                promised = max(self._counts.get(name, 0), self.topics[name].count)
                if read[name] < promised:
                    self._say(f"{read[name]} of {promised} messages on {name} are there")
        if self.damage:
            raise BagError(
                f"{self.path}: {sum(read.values())} messages could be read, but not everything: {self.damage}"
            )

    def readable(self, topics: Collection[str]) -> Iterator[Message]:
        """Messages as above, without a word about damage: for what is read beside the images, whose reader tells."""
        with suppress(BagError):
            yield from self.messages(topics)

    def start_time(self) -> int:
        """Nanoseconds, of the first message; BagError if there is none."""
        first = min(file.start for file in self._files)
        if first == NEVER_STARTED:
            raise BagError(f"{self.path}: it holds no messages")
        return first

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
                f"is not a {kind} ({sentence(error)})"
            ) from None

    def _merged(self, names: set[str], start: int | None, stop: int | None) -> Iterator[tuple[int, str, bytes]]:
        """(time, topic, data) of all files in order of time; a file is begun when its time has come."""
        begun: list[tuple[int, int, str, bytes]] = []
        sources: dict[int, Iterator[tuple[str, int, bytes]]] = {}

        def advance(number: int) -> None:
            following = next(sources[number], None)
            if following is not None:
                name, time, data = following
                heapq.heappush(begun, (time, number, name, data))

        for number in sorted(range(len(self._files)), key=lambda number: self._files[number].start):
            file = self._files[number]
            while begun and begun[0][0] < file.start:
                time, source, name, data = heapq.heappop(begun)
                yield time, name, data
                advance(source)
            sources[number] = file.messages(names & set(file.topics), start, stop)
            advance(number)
        while begun:
            time, source, name, data = heapq.heappop(begun)
            yield time, name, data
            advance(source)

    def _open(self, parts: Parts) -> list[McapFile | SqliteFile]:
        files: list[McapFile | SqliteFile] = []
        problems = []
        for path in parts.files:
            try:
                files.append(self._open_file(path))
                self._stack.callback(files[-1].close)
            except BagError as error:
                problems.append(str(error))
        if not files:
            raise BagError("; ".join(problems))
        self._damage += [f"{name} is missing" for name in parts.missing] + problems
        return files

    def _open_file(self, path: Path) -> McapFile | SqliteFile:
        """Of whatever kind its first bytes say, decompressed if it is compressed as a whole."""
        with path.open("rb") as file:
            head = file.read(16)
        if compression_of(head):
            folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="superpoint_bag_")))
            path = self._unpacked(path, compression_of(head), folder)
            with path.open("rb") as file:
                head = file.read(16)
        return SqliteFile(path) if head.startswith(b"SQLite") else McapFile(path)

    def _unpacked(self, path: Path, compression: str, folder: Path) -> Path:
        target = folder / path.stem
        problem = unpack(path, target, compression, int(PART_OF_DISK * shutil.disk_usage(folder).free))
        if not target.stat().st_size:
            raise BagError(f"{path}: not a readable bag; {problem or 'it is empty'}")
        if problem:
            self._say(f"{path.name}: {problem}")
        return target

    def _compare_with_metadata(self) -> None:
        for name, count in self._counts.items():
            there = self.topics[name].count if name in self.topics else 0
            if there > count:
                self.notes.append(f"its metadata.yaml counts {count} messages on {name}, it holds {there}")
            elif name not in self.topics and name not in self._others and count:
                self._say(f"metadata.yaml counts {count} messages on {name}, none are there")
        unknown = [name for name in self.topics if self._counts and name not in self._counts]
        if unknown:
            self.notes.append(f"its metadata.yaml does not know {', '.join(unknown)}")

    def _say(self, text: str) -> None:
        if text not in self._damage:
            self._damage.append(text)

    def _register(self, kind: str) -> None:
        """Learn a type from the definition in the bag."""
        definition = self._definitions.get(kind)
        if definition is None:
            raise BagError("its definition is not in the bag")
        if definition.format == MessageDefinitionFormat.IDL:
            types = get_types_from_idl(definition.data)
        else:
            types = get_types_from_msg(definition.data, kind)
        known = self._store.fielddefs
        self._store.register({name: fields for name, fields in types.items() if name not in known})

    def _other_topics(self) -> str:
        return ", ".join(f"{name} ({text})" for name, text in self._others.items())

    def _converters(self) -> str:
        if any(text.endswith("ros1") for text in self._others.values()):
            return f" ({ROS1_CONVERTER} converts the ROS 1 bag that it came from)"
        return ""

    def _without_images(self) -> str:
        if self._others and not self.topics:
            return f"all it holds is {self._other_topics()}; expected messages encoded as cdr{self._converters()}"
        others = ", ".join(f"{topic.name} ({topic.type})" for topic in self.topics.values())
        return f"it has no image topic, only {others}" if others else "it has no topics at all"
