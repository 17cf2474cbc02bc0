from __future__ import annotations

import pytest

from superpoint_ros.bags.definitions import OUR_MESSAGES, message_folder, typestore


@pytest.mark.parametrize("name", OUR_MESSAGES)
def test_every_message_is_known(name):
    assert f"superpoint_ros/msg/{name}" in typestore().fielddefs


def test_no_message_is_forgotten():
    assert sorted(file.stem for file in message_folder().glob("*.msg")) == sorted(OUR_MESSAGES)


@pytest.mark.parametrize("name", OUR_MESSAGES)
def test_the_built_messages_have_the_same_fields(name):
    messages = pytest.importorskip("superpoint_ros.msg", reason="needs the built messages")
    _, fields = typestore().fielddefs[f"superpoint_ros/msg/{name}"]
    built = getattr(messages, name).get_fields_and_field_types()
    assert [field for field, _ in fields] == list(built)
