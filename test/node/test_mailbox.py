"""superpoint_ros/node/mailbox.py"""

import threading

from superpoint_ros.node.mailbox import Frame, Mailbox, Worker


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


def test_cameras_are_served_in_turn_each_with_its_newest_frame():
    mailbox = Mailbox(["left", "rear", "right"], in_turn=lambda: True)
    served = []
    for message in range(4):  # all cameras are faster than the worker
        for camera in ("left", "rear", "right"):
            mailbox.put(camera, [frame(camera, message)])
        served += messages(mailbox.take())
    assert served == [("left", 0), ("rear", 1), ("right", 2), ("left", 3)]
    mailbox.put("left", [frame("left", 4)])
    assert messages(mailbox.take()) == [("rear", 3)]
    assert messages(mailbox.take()) == [("right", 3)]
    assert messages(mailbox.take()) == [("left", 4)]


def test_cameras_are_served_in_turn_for_as_long_as_a_batch_is_no_faster():
    on_cpu = False
    mailbox = Mailbox(["left", "right"], in_turn=lambda: on_cpu)
    served = []
    for message in range(3):
        on_cpu = message == 1
        for camera in ("left", "right"):
            mailbox.put(camera, [frame(camera, message)])
        served.append(messages(mailbox.take()))
    assert served == [[("left", 0), ("right", 0)], [("left", 1)], [("right", 2), ("left", 2)]]


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
    thread.join(timeout=300)
    assert messages(taken) == [("left", 7)]


def test_close_wakes_the_taker_with_nothing_and_forgets_frames():
    mailbox = Mailbox(["left"])
    taken = []
    thread = threading.Thread(target=lambda: taken.append(mailbox.take()))
    thread.start()
    mailbox.close()
    thread.join(timeout=300)
    assert taken == [[]]
    assert messages(mailbox.put("left", [frame("left", 1)])) == [("left", 1)]
    assert mailbox.take() == []


def test_frames_that_nobody_takes_before_the_end_are_told():
    mailbox = Mailbox(["left", "right"])
    mailbox.put("left", [frame("left", 1)])
    assert messages(mailbox.close()) == [("left", 1)]


def test_an_error_is_reported_and_the_next_frame_is_processed():
    mailbox = Mailbox(["left"])
    failed, done = threading.Event(), threading.Event()
    errors, processed = [], []

    def process(frames):
        if frames[0].message == "bad":
            raise RuntimeError("out of memory")
        processed.append(frames[0].message)
        done.set()

    def on_error(error, frames):
        errors.append((str(error), frames[0].message))
        failed.set()

    worker = Worker(mailbox, process, on_error)
    mailbox.put("left", [Frame("left", "bad", 0.0)])
    assert failed.wait(300)
    mailbox.put("left", [Frame("left", "good", 0.0)])
    assert done.wait(300)
    assert worker.stop(30) == []
    assert errors == [("out of memory", "bad")]
    assert processed == ["good"]


def test_stop_waits_for_the_frame_in_work():
    mailbox = Mailbox(["left"])
    begun, go_on = threading.Event(), threading.Event()
    finished = []

    def process(frames):
        begun.set()
        assert go_on.wait(300)
        finished.append(frames[0].message)

    worker = Worker(mailbox, process, lambda error, frames: None)
    mailbox.put("left", [Frame("left", 1, 0.0)])
    assert begun.wait(300)
    stopper = threading.Thread(target=worker.stop, args=[30])
    stopper.start()
    go_on.set()
    stopper.join(timeout=300)
    assert finished == [1]


def test_stop_waits_no_longer_than_its_limit():
    mailbox = Mailbox(["left"])
    begun, go_on = threading.Event(), threading.Event()

    def process(frames):
        begun.set()
        go_on.wait()

    worker = Worker(mailbox, process, lambda error, frames: None)
    mailbox.put("left", [Frame("left", 1, 0.0)])
    assert begun.wait(300)
    mailbox.put("left", [Frame("left", 2, 0.0)])
    assert messages(worker.stop(0.01)) == [("left", 2)] and worker.busy
    go_on.set()
    worker.stop(30)
    assert not worker.busy
