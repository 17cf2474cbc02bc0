"""superpoint_ros/node/transport.py; that Fast DDS takes it, test_node_process.py shows."""

import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from superpoint_ros.node.transport import THEIR_FILES, THEIRS, make_room

DESCRIPTORS = 1024 * 256 * 4


@pytest.fixture(autouse=True)
def untouched(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in THEIRS:
        monkeypatch.setenv(name, "")  # so that it is restored after the test
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("library", "name"),
    [
        ("libfastdds.so.3.2", "FASTDDS_DEFAULT_PROFILES_FILE"),
        ("libfastrtps.so.2.14", "FASTRTPS_DEFAULT_PROFILES_FILE"),
    ],
)
def test_fast_dds_gets_room_for_several_features_messages(monkeypatch, tmp_path, library, name):
    (tmp_path / library).touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{tmp_path / 'empty'}:{tmp_path}:")
    make_room()
    assert [key for key in THEIRS if key in os.environ] == [name]
    profiles = ElementTree.parse(os.environ[name])
    found = {element.tag.partition("}")[2]: element.text for element in profiles.iter()}
    assert int(found["segment_size"]) >= 4 * DESCRIPTORS
    assert int(found["maxMessageSize"]) >= 2 * DESCRIPTORS


@pytest.mark.parametrize("name", THEIRS)
def test_what_the_user_has_set_stays(monkeypatch, name):
    monkeypatch.setenv(name, "theirs")
    make_room()
    assert {key: os.environ.get(key) for key in THEIRS} == {**dict.fromkeys(THEIRS), name: "theirs"}


@pytest.mark.parametrize("name", THEIR_FILES)
def test_the_users_file_in_the_working_folder_counts(name):
    Path(name).touch()
    make_room()
    assert not any(key in os.environ for key in THEIRS)
