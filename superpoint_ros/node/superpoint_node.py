"""The lifecycle node: images in; keypoints, matches, homographies and diagnostics out.

What happens to an image is in `pipeline.py` and `camera.py`, whether it comes in at all in `rig.py`.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Collection
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState
from rclpy.lifecycle import TransitionCallbackReturn as Return
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from superpoint_ros.features.extractor import Extractor
from superpoint_ros.frontend.parameter_rules import change
from superpoint_ros.frontend.parameters import TABLE
from superpoint_ros.network.engines.devices import DeviceLost
from superpoint_ros.node.camera import Camera
from superpoint_ros.node.clock import MISSING, PAUSED, ClockWatch
from superpoint_ros.node.declaration import declare, follow_changes
from superpoint_ros.node.network import give_back_memory, make_extractor, warm_up
from superpoint_ros.node.qos import advertise, warn_of_ineffective_overrides
from superpoint_ros.node.rig import Rig

NODE_NAME = "superpoint"
SUCCESS, FAILURE, ERROR = Return.SUCCESS, Return.FAILURE, Return.ERROR
Transition = Callable[["SuperPointNode", LifecycleState], Return]


def told(transition: Transition) -> Transition:
    """A transition whose exceptions are logged, unless the process ends: rclpy makes them ERROR without a word."""

    @functools.wraps(transition)
    def guarded(self: SuperPointNode, state: LifecycleState) -> Return:
        try:
            result = transition(self, state)
        except Exception as error:
            name, where = transition.__name__.removeprefix("on_"), traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
            self._complain(f"An error in '{name}': {what}. The node is cleaned up, and may be configured again.")
            return ERROR
        self._end_if_asked()  # rclpy would log that it cannot publish the transition
        return result

    return guarded


class SuperPointNode(LifecycleNode):
    """See docs/topics.md and docs/parameters.md; ValueError for a parameter that is not allowed.

    Spinning it raises DeviceLost, which it has logged, when its GPU answers no more.

    robot_wide  names of parameters that a file gives to nodes of any name
    """

    def __init__(self, robot_wide: Collection[str] = (), **kwargs: Any) -> None:
        super().__init__(NODE_NAME, **kwargs)
        self.rig: Rig | None = None
        self._extractor: Extractor | None = None
        self._lost: DeviceLost | None = None
        self._losing = self.create_guard_condition(self._raise_lost)
        self._on_cpu = ""  # why, though a GPU was asked for
        self._state = "unconfigured"
        self._enabled = True
        self.parameters = declare(self, robot_wide)
        follow_changes(self, self._change_parameters)
        self._diagnostics_publisher = advertise(self, DiagnosticArray, "/diagnostics", depth=10, gated=False)
        self.create_service(Trigger, "~/reset", self._reset)
        self.create_service(SetBool, "~/enable", self._enable)
        self._clock_watch = ClockWatch(self, on_jump_back=self._drop_references)
        # The steady clock: a paused simulation is when one wants diagnostics.
        self.create_timer(1.0, self._publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME))

    @property
    def cameras(self) -> dict[str, Camera]:
        """By name; none unless configured."""
        return self.rig.cameras if self.rig else {}

    # Lifecycle

    def start(self) -> bool:
        """Configure and activate; False, with the reason logged, if either fails."""
        return self.trigger_configure() == SUCCESS and self.trigger_activate() == SUCCESS

    @told
    def on_configure(self, state: LifecycleState) -> Return:
        """Load the weights, warm the device up, and announce the topics."""
        values = self.parameters
        try:
            self._extractor, self._on_cpu = make_extractor(values, self.get_logger().warning)
            values.apply(self._extractor)
            self._extractor.resize = None  # for cameras' images; this one may become too thin
            warm_up(self._extractor)
        except DeviceLost as error:
            self._clean_up()
            self._end(error)
            return FAILURE
        except (ValueError, OSError, RuntimeError) as error:
            return self._refused(f"The network cannot be set up: {error}.")
        try:
            self.rig = Rig(self, self._extractor, values, self._attend, self._end)
        except (ValueError, RuntimeError) as error:
            return self._refused(f"The cameras cannot be set up: {error}")
        self._state = "inactive"
        self.get_logger().info(
            f"Weights {self._extractor.weights_id} run on {self._extractor.device} ({self._extractor.engine})."
        )
        return SUCCESS

    @told
    def on_activate(self, state: LifecycleState) -> Return:
        """Subscribe: rclpy does not gate subscriptions, so they exist only while active."""
        result = super().on_activate(state)
        if self._enabled and not self._listen():
            super().on_deactivate(state)
            return FAILURE
        if not self._enabled:
            self.get_logger().info("Active, but disabled by ~/enable: no images are taken in.")
        self._state = "active"
        return result

    @told
    def on_deactivate(self, state: LifecycleState) -> Return:
        """Unsubscribe, and finish the frames in work."""
        self._stop_listening()
        self._state = "inactive"
        return super().on_deactivate(state)

    @told
    def on_cleanup(self, state: LifecycleState) -> Return:
        """Give the network and its memory back."""
        self._clean_up()
        self._state = "unconfigured"
        self.get_logger().info("Network and topics are given back; every parameter may be changed.")
        return SUCCESS

    @told
    def on_shutdown(self, state: LifecycleState) -> Return:
        """From any state."""
        self._clean_up()
        self._state = "finalized"
        self.get_logger().info("Shut down.")
        return SUCCESS

    @told
    def on_error(self, state: LifecycleState) -> Return:
        """After an exception in a transition: as after cleanup, so that it may be tried again."""
        self._clean_up()
        self._state = "unconfigured"
        return SUCCESS

    def destroy_node(self) -> None:
        """Stop the worker before its publishers go, and give the memory back: rclpy may keep the node itself."""
        self._clean_up()
        super().destroy_node()

    def _end_if_asked(self) -> None:
        """Raise KeyboardInterrupt, which rclpy passes on, once a signal has ended the context and all else fails."""
        if not self.context.ok():
            raise KeyboardInterrupt

    def _complain(self, sentence: str) -> None:
        self._end_if_asked()
        self.get_logger().error(sentence)

    def _refused(self, sentence: str) -> Return:
        self._clean_up()
        self._complain(sentence)
        return FAILURE

    def _listen(self) -> bool:
        assert self.rig is not None
        try:
            self.rig.start()
        except RuntimeError as error:
            self._complain(str(error))
            return False
        warn_of_ineffective_overrides(self)
        return True

    def _attend(self) -> None:
        """Begin or end to take images in, as subscribers come and go."""
        if self.rig is None:
            return
        try:
            self.rig.attend()
        except RuntimeError as error:  # what a callback raises would end the node
            self._complain(str(error))

    def _stop_listening(self) -> None:
        if self.rig is not None and self.rig.running:
            self.rig.stop()
            self.get_logger().info(f"No longer listening to {self._topics()}.")

    def _topics(self) -> str:
        return ", ".join(camera.inputs.topic for camera in self.cameras.values())

    def _clean_up(self) -> None:
        hangs = False
        if self.rig is not None:
            self.rig.stop()  # before it is forgotten: an interrupt may come while its worker is waited for
            rig, self.rig = self.rig, None
            rig.destroy()
            hangs = rig.hangs
            del rig
        self._extractor = None
        give_back_memory(gpu=not hangs)

    def _end(self, error: DeviceLost) -> None:
        """Stop spinning, from any thread: only another process, which a launch file may start, brings the GPU back."""
        if self._lost is None:
            self._lost = error
            self.get_logger().fatal(f"The node ends: {error}.")
            self._losing.trigger()

    def _raise_lost(self) -> None:
        assert self._lost is not None
        raise self._lost

    # Services

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Drop the references and the tracks of all cameras."""
        self._drop_references()
        response.success = True
        response.message = f"references and tracks of {len(self.cameras)} camera(s) are dropped"
        self.get_logger().info(f"~/reset: {response.message}.")
        return response

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """Stop and resume listening without a lifecycle transition; remembered while inactive."""
        self._enabled = request.data
        response.success = True
        if self.rig is not None and self._state == "active":
            if not request.data:
                self._stop_listening()
            elif not self.rig.running:
                response.success = self._listen()
        word = "enabled" if request.data else "disabled"
        response.message = f"node is {word} and {self._state}"
        self.get_logger().info(f"~/enable: {response.message}.")
        return response

    # Parameters

    def _change_parameters(self, proposals: list[Parameter]) -> None:
        values = change(self.parameters, proposals, configured=self._extractor is not None)
        old, new = (
            {**{name: getattr(each, name) for name in TABLE}, **each.by_camera} for each in (self.parameters, values)
        )
        for name in {**old, **new}:
            if new.get(name) != old.get(name):
                text = f"is {new[name]!r} from now on" if name in new else "is as for all cameras from now on"
                before = f", no longer {old[name]!r}" if name in old else ""
                self.get_logger().info(f"Parameter {name} {text}{before}.")
        began, self.parameters = self.parameters, values
        if self.rig is not None:
            self.rig.values = values
        if values.lazy != began.lazy:
            self._attend()

    # Diagnostics

    def _publish_diagnostics(self) -> None:
        extractor, clock = self._extractor, self._clock_watch.look()
        state = "disabled" if self._state == "active" and not self._enabled else self._state
        facts = {
            "device": extractor.device if extractor else "",
            "engine": extractor.engine if extractor else "",
            "weights_id": extractor.weights_id if extractor else "",
        }
        remarks = [clock] if clock == MISSING else []
        if extractor is not None and (why := self._on_cpu or extractor.trouble):
            remarks.append(f"runs on the CPU though device is '{self.parameters.device}': {why}")
        if self.rig is not None and state == "active" and clock != PAUSED and (trouble := self.rig.trouble()):
            remarks.append(trouble)
        self._attend()  # where nobody tells of subscribers: on Humble, and with some middlewares
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        for camera in self.cameras.values():
            if clock == PAUSED:
                camera.statistics.listening()  # no images are to be expected
            if state == "active":
                camera.complain_of_silence()
            message.status.append(camera.status(state, self.parameters, facts, remarks))
        if not self.cameras:
            name = f"{self.get_fully_qualified_name()}: features"
            message.status = [DiagnosticStatus(name=name, message=f"node is {state}")]
        self._diagnostics_publisher.publish(message)

    def _drop_references(self) -> None:
        if self.rig is not None:
            self.rig.reset()
