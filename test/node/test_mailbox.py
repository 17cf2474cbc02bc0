"""superpoint_ros/node/mailbox.py"""

import threading

from superpoint_ros.node.mailbox import Frame, Mailbox


def frame(camera, message=None):
    return Frame(camera, message, received=0.0)


def messages(frames):
    return [(one.camera, one.message) for one in frames]


def test_the_newest_frame_replaces_the_one_that_nobody_took():
    mailbox = Mailbox(["left"])
    assert mailbox.put("left", [frame("left", 1)]) == []
    assert messages(mailbox.put("left", [frame("left", 2)])) == [("left", 1)]
    assert messages(mailbox.take()) == [("left", 2)]
    assert mailbox.put("left", [frame("left", 3)]) == []


def test_each_camera_keeps_its_own_newest_frame():
    mailbox = Mailbox(["left", "right"])
    for message in range(5):
        mailbox.put("left", [frame("left", message)])
    mailbox.put("right", [frame("right", 9)])
    assert messages(mailbox.take()) == [("left", 4), ("right", 9)]


def test_a_synchronised_set_is_replaced_whole():
    mailbox = Mailbox(["rig"])
    mailbox.put("rig", [frame("left", 1), frame("right", 1)])
    dropped = mailbox.put("rig", [frame("left", 2), frame("right", 2)])
    assert messages(dropped) == [("left", 1), ("right", 1)]
    assert messages(mailbox.take()) == [("left", 2), ("right", 2)]


def test_take_waits_for_a_frame():
    mailbox = Mailbox(["left"])
    taken = []
    thread = threading.Thread(target=lambda: taken.extend(mailbox.take()))
    thread.start()
    mailbox.put("left", [frame("left", 7)])
    thread.join(timeout=5)
    assert messages(taken) == [("left", 7)]


def test_close_wakes_the_taker_with_nothing_and_forgets_frames():
    mailbox = Mailbox(["left"])
    taken = []
    thread = threading.Thread(target=lambda: taken.append(mailbox.take()))
    thread.start()
    mailbox.close()
    thread.join(timeout=5)
    assert taken == [[]]
    assert mailbox.put("left", [frame("left", 1)]) == []
    assert mailbox.take() == []
