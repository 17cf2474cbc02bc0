"""superpoint_ros/node/mailbox.py"""

import threading

from superpoint_ros.node.mailbox import Frame, Mailbox


def frame(camera, message=None):
    return Frame(camera, message, received=0.0)


def test_the_newest_frame_replaces_the_one_that_nobody_took():
    mailbox = Mailbox(["left"])
    assert mailbox.put(frame("left", 1)) is False
    assert mailbox.put(frame("left", 2)) is True
    assert [one.message for one in mailbox.take()] == [2]
    assert mailbox.put(frame("left", 3)) is False


def test_each_camera_keeps_its_own_newest_frame():
    mailbox = Mailbox(["left", "right"])
    for message in range(5):
        mailbox.put(frame("left", message))
    mailbox.put(frame("right", 9))
    assert [(one.camera, one.message) for one in mailbox.take()] == [("left", 4), ("right", 9)]


def test_take_waits_for_a_frame():
    mailbox = Mailbox(["left"])
    taken = []
    thread = threading.Thread(target=lambda: taken.extend(mailbox.take()))
    thread.start()
    mailbox.put(frame("left", 7))
    thread.join(timeout=5)
    assert [one.message for one in taken] == [7]


def test_close_wakes_the_taker_with_nothing_and_forgets_frames():
    mailbox = Mailbox(["left"])
    taken = []
    thread = threading.Thread(target=lambda: taken.append(mailbox.take()))
    thread.start()
    mailbox.close()
    thread.join(timeout=5)
    assert taken == [[]]
    assert mailbox.put(frame("left", 1)) is False
    assert mailbox.take() == []
