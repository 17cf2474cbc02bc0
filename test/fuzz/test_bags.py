"""Damaged bags yield messages and end in BagError, with a sentence that a terminal can show."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rosbags.rosbag2 import StoragePlugin, Writer

from bag_samples import SECOND, image_bytes, write_mcap
from damage import FUZZ, damaged
from superpoint_ros.bags.content import IMAGE, BagError
from superpoint_ros.bags.definitions import typestore
from superpoint_ros.bags.reader import BagReader

COUNT = 6
KINDS = ["mcap", "mcap in chunks", "mcap with zstd", "mcap with lz4", "sqlite3"]


@pytest.fixture(scope="module")
def bags(tmp_path_factory):
    """kind -> bytes of a small bag's only file."""
    folder = tmp_path_factory.mktemp("whole")
    picture = np.random.default_rng(0).integers(0, 256, (24, 32), np.uint8)
    messages = [("/camera", SECOND * number, image_bytes(SECOND * number, picture)) for number in range(1, COUNT + 1)]
    found = {}
    for kind, options in (
        ("mcap", {"per_chunk": 0}),
        ("mcap in chunks", {}),
        ("mcap with zstd", {"compression": "zstd"}),
        ("mcap with lz4", {"compression": "lz4"}),
    ):
        write_mcap(folder / "bag.mcap", messages, **options)
        found[kind] = (folder / "bag.mcap").read_bytes()
    with Writer(folder / "bag", version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection("/camera", IMAGE, typestore=typestore())
        for _, time, data in messages:
            writer.write(connection, time, data)
    with sqlite3.connect(folder / "bag" / "bag.db3") as database:
        database.execute("PRAGMA journal_mode = DELETE")
    database.close()
    found["sqlite3"] = (folder / "bag" / "bag.db3").read_bytes()
    return found


def read(path):
    """Everything a tool does with a bag; how many messages it gave."""
    count = 0
    try:
        with BagReader(path) as bag:
            assert all(note.isprintable() for note in bag.notes)
            for topic in bag.image_topics():
                assert topic.count >= 0
            for message in bag.messages():
                count += 1
                try:
                    bag.decode(message)
                except BagError as error:
                    assert str(error).isprintable()
    except BagError as error:
        assert str(error).isprintable() and str(path) in str(error)
    return count


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_bag_gives_all(bags, tmp_path, kind):
    path = tmp_path / ("bag.db3" if kind == "sqlite3" else "bag.mcap")
    path.write_bytes(bags[kind])
    assert read(path) == COUNT


@pytest.mark.parametrize("kind", KINDS)
@FUZZ
@given(data=st.data())
def test_damaged_files(bags, tmp_path_factory, kind, data):
    path = tmp_path_factory.getbasetemp() / ("fuzz.db3" if kind == "sqlite3" else "fuzz.mcap")
    path.write_bytes(data.draw(damaged(bags[kind])))
    read(path)


@FUZZ
@given(st.binary(max_size=200))
def test_metadata_of_any_bytes(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp() / "folder"
    folder.mkdir(exist_ok=True)
    (folder / "metadata.yaml").write_bytes(content)
    read(folder)


METADATA = b"""rosbag2_bagfile_information:
  version: 8
  storage_identifier: mcap
  relative_file_paths: [bag.mcap]
  topics_with_message_count:
    - topic_metadata: {name: /camera, type: sensor_msgs/msg/Image, serialization_format: cdr, offered_qos_profiles: []}
      message_count: 6
"""


@FUZZ
@given(damaged(METADATA))
def test_damaged_metadata_beside_a_whole_file_costs_no_message(bags, tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp() / "beside"
    folder.mkdir(exist_ok=True)
    (folder / "bag.mcap").write_bytes(bags["mcap in chunks"])
    (folder / "metadata.yaml").write_bytes(content)
    assert read(folder) in (0, COUNT)
