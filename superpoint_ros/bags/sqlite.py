"""An sqlite3 file of a bag (.db3), whole or not: by SQL as far as it goes, then page by page."""

from __future__ import annotations

import mmap
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rosbags.interfaces import MessageDefinition, Qos
from rosbags.rosbag2.metadata import parse_qos

from superpoint_ros.bags.content import NEVER_STARTED, BagError, Topic, full_type, sentence
from superpoint_ros.bags.mcap import FORMATS
from superpoint_ros.bags.pages import Pages, Row

MAGIC = b"SQLite format 3\0"
SUSPICIOUS = 1 << 16
"""Bytes of a file in which SQLite should find messages: a tree whose root is damaged may look empty."""


class SqliteFile:
    """One sqlite3 file. Raises BagError for what is none, or has no topics.

    topics       name -> Topic
    definitions  type -> definition
    others       topics whose messages are not CDR, and in a few words what they are instead
    damage       what could not be read so far, a few words each
    start        nanoseconds, of the first message, or NEVER_STARTED
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: list[str] = []
        self.definitions: dict[str, MessageDefinition] = {}
        self.others: dict[str, str] = {}
        self._names: dict[int, str] = {}
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise BagError(f"{path}: not a readable bag; it does not begin as an sqlite3 file does")
        self._connection, whole = _connect(path)
        if not whole:
            self.damage.append("what its journal holds could not be applied")
        try:
            tables = self._rows_of("SELECT name FROM sqlite_master WHERE type = 'table'")
            if not {"topics", "messages"} <= {name for (name,) in tables}:
                raise BagError(f"{path}: not a readable bag; it is an sqlite3 file without topics and messages")
            topics = self._rows_of("SELECT * FROM topics ORDER BY id")
            ((first,),) = self._rows_of("SELECT min(timestamp) FROM messages")
            counts = dict(self._rows_of("SELECT topic_id, count(*) FROM messages GROUP BY topic_id"))
            if not counts and path.stat().st_size > SUSPICIOUS:
                ((verdict,),) = self._rows_of("PRAGMA quick_check(1)")
                if verdict != "ok":
                    raise sqlite3.DatabaseError(verdict)
            if "message_definitions" in {name for (name,) in tables}:
                query = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
                self._learn(self._rows_of(query))
        except sqlite3.DatabaseError as error:
            self._say(error)
            topics, counts, first = self._found_topics()
        except BagError:
            self._connection.close()
            raise
        self.start = NEVER_STARTED if first is None else first
        self.topics: dict[str, Topic] = {}
        others: set[int] = set()
        for row in topics:
            key, name, kind = row[:3]
            if not (isinstance(key, int) and isinstance(name, str) and isinstance(kind, str)):
                self.damage.append("a topic without number, name or type")
                continue
            if len(row) > 3 and isinstance(row[3], str) and row[3] not in ("cdr", ""):
                self.others[name] = f"{full_type(kind)}, encoded as {row[3]}"
                others.add(key)
                continue
            qos = _qos(row[4]) if len(row) > 4 else None
            self._names[key] = name
            before = self.topics[name].count if name in self.topics else 0
            self.topics[name] = Topic(name, full_type(kind), counts.get(key, 0) + before, qos)
        nameless = sum(count for key, count in counts.items() if key not in self._names and key not in others)
        if nameless:
            self.damage.append(f"{nameless} messages are of topics that it does not name")
        if not self.topics and self.damage:
            self._connection.close()
            raise BagError(f"{path}: not a readable bag; {self.damage[0]}, and no topics are left in it")

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()

    def messages(
        self, names: Collection[str], start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[str, int, bytes]]:
        """(topic, time, data) of these topics in order of time, from `start` to before `stop` (nanoseconds)."""
        wanted = [key for key, name in self._names.items() if name in names]
        first, end = -(1 << 63) if start is None else start, (1 << 63) - 1 if stop is None else stop
        query = (
            "SELECT id, topic_id, timestamp, data FROM messages "
            f"WHERE topic_id IN ({', '.join('?' * len(wanted))}) AND timestamp >= ? AND timestamp < ? "
            "ORDER BY timestamp, id"
        )
        done = set()
        try:
            for key, topic, time, data in self._connection.execute(query, [*wanted, first, end]):
                done.add(key)
                yield self._names[topic], time, data
            return
        except sqlite3.DatabaseError as error:
            self._say(error)
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            pages = Pages(data)
            left = {row.rowid: (time, topic, row) for row, topic, time in _message_rows(pages) if row.rowid not in done}
            for _, (time, topic, row) in sorted(left.items(), key=lambda item: (item[1][0], item[0])):
                if topic in wanted and first <= time < end:
                    values = pages.values(row, 4)
                    if values is not None and isinstance(values[3], bytes):
                        yield self._names[topic], time, values[3]

    def _rows_of(self, query: str) -> list[Any]:
        return self._connection.execute(query).fetchall()

    def _learn(self, definitions: Iterable[Any]) -> None:
        for kind, encoding, text in definitions:
            if encoding in FORMATS and isinstance(kind, str) and isinstance(text, str):
                self.definitions[full_type(kind)] = MessageDefinition(FORMATS[encoding], text)

    def _found_topics(self) -> tuple[list[Any], Counter[int], int | None]:
        """Rows that look like topics, definitions and messages, wherever they lie."""
        topics: dict[int, Any] = {}
        counts: Counter[int] = Counter()
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            pages = Pages(data)
            for row in pages.rows():
                if 4 <= len(row.types) <= 6 and all(kind >= 12 and kind % 2 for kind in row.types[1:4]):
                    values = pages.values(row, len(row.types))
                    if values and str(values[1]).startswith("/") and "/" in str(values[2]):
                        topics[row.rowid] = values
                    elif values and len(values) > 3:
                        self._learn([values[1:4]])
            first = None
            for _, topic, time in _message_rows(pages):
                counts[topic] += 1
                first = time if first is None else min(first, time)
        return list(topics.values()), counts, first

    def _say(self, error: Exception) -> None:
        text = f"SQLite says '{sentence(error)}'"
        if text not in self.damage:
            self.damage.append(text)


def _connect(path: Path) -> tuple[sqlite3.Connection, bool]:
    """Read only; and whether what lies in a journal beside it, of a recording that never ended, is read, too."""
    name = quote(str(path.resolve()))
    try:
        return _opened(f"file:{name}?mode=ro"), True
    except sqlite3.DatabaseError:
        connection = _opened(f"file:{name}?mode=ro&immutable=1", check=False)
        journals = (path.with_name(path.name + suffix) for suffix in ("-wal", "-journal"))
        return connection, not any(journal.exists() and journal.stat().st_size for journal in journals)


def _opened(uri: str, check: bool = True) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    try:
        # Otherwise SQLite refuses a file that is shorter than it says.
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    except sqlite3.DatabaseError:
        if check:
            connection.close()
            raise
    return connection


def _message_rows(pages: Pages) -> Iterator[tuple[Row, int, int]]:
    """Rows that look like messages, with topic and time; those that continue in lost pages are left out later."""
    for row in pages.rows():
        blob = len(row.types) == 4 and row.types[3] >= 12 and not row.types[3] % 2
        if blob and 0 < row.types[1] <= 9 and 0 < row.types[2] <= 9:
            values = pages.values(row, 3)
            if values is not None and isinstance(values[1], int) and isinstance(values[2], int):
                yield row, values[1], values[2]


def _qos(text: object) -> Qos | None:
    with suppress(Exception):  # QoS is a convenience; rosbags raises several errors for what it does not know
        return next(iter(parse_qos(str(text))), None)
    return None
