"""superpoint_ros/node/worker.py"""

import threading

from superpoint_ros.node.mailbox import Frame, Mailbox
from superpoint_ros.node.worker import Worker


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
    assert failed.wait(5)
    mailbox.put("left", [Frame("left", "good", 0.0)])
    assert done.wait(5)
    worker.stop()
    assert errors == [("out of memory", "bad")]
    assert processed == ["good"]


def test_stop_waits_for_the_frame_in_work():
    mailbox = Mailbox(["left"])
    begun, go_on = threading.Event(), threading.Event()
    finished = []

    def process(frames):
        begun.set()
        assert go_on.wait(5)
        finished.append(frames[0].message)

    worker = Worker(mailbox, process, lambda error, frames: None)
    mailbox.put("left", [Frame("left", 1, 0.0)])
    assert begun.wait(5)
    stopper = threading.Thread(target=worker.stop)
    stopper.start()
    go_on.set()
    stopper.join(timeout=5)
    assert finished == [1]
