"""superpoint_ros/interrupts.py"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# An import hook stops in the middle of torch's own imports, as an impatient user would, and notes that it did.
SCRIPT = """
import importlib.abc, os, signal, sys
class Impatient(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            open({marker!r}, "w").close()
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Impatient())
signal.signal(signal.SIGINT, signal.default_int_handler)
from {program} import main
sys.exit(main({arguments!r}))
"""
STARTED = """
import os, signal, sys
import {module} as module
from superpoint_ros.node.__main__ import main
signal.signal(signal.SIGINT, signal.default_int_handler)
module.{name} = lambda **_: os.kill(os.getpid(), signal.SIGINT)
sys.exit(main([]))
"""
COMMANDS = [
    ("superpoint_ros.tools.cli", ["match", "a.png", "b.png"], "torch"),
    ("superpoint_ros.tools.cli", ["match", "a.png", "b.png"], "cv2"),
    ("superpoint_ros.tools.cli", ["extract", "bag", "out"], "torch.nn"),
    ("superpoint_training.cli", ["magicpoint", "--out", "new"], "torch"),
]


@pytest.mark.parametrize(("program", "arguments", "module"), COMMANDS)
def test_an_interrupt_while_modules_are_imported_ends_a_command_without_a_word(tmp_path, program, arguments, module):
    check_it_ends_quietly(tmp_path, program, arguments, module)


def test_an_interrupt_while_modules_are_imported_ends_the_node_without_a_word(tmp_path):
    pytest.importorskip("rclpy", reason="needs ROS")
    check_it_ends_quietly(tmp_path, "superpoint_ros.node.__main__", [], "torch")


def check_it_ends_quietly(tmp_path, program, arguments, module):
    marker = tmp_path / "interrupted"
    script = SCRIPT.format(module=module, marker=str(marker), program=program, arguments=arguments)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, Path(__file__).parents[1].glob("training")))}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, env=environment)
    assert marker.exists(), done.stderr
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize(("module", "name"), [("superpoint_ros.node.__main__", "make_room"), ("rclpy", "init")])
def test_an_interrupt_while_ros_is_started_ends_the_node_without_a_word(module, name):
    pytest.importorskip("rclpy", reason="needs ROS")
    script = STARTED.format(module=module, name=name)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_afterwards_an_interrupt_is_what_it_was():
    from superpoint_ros.interrupts import ending_at_once

    before = signal.getsignal(signal.SIGINT)
    with ending_at_once():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
