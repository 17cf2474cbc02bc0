"""The node's services, as a lifecycle manager or an operator calls them."""

from __future__ import annotations

from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter

from soak.checks import Failure
from soak.rig import SoakRig


def set_parameters(rig: SoakRig, values: dict[str, Any]) -> Any:
    """The results, one for each."""
    request = SetParameters.Request(parameters=[Parameter(n, value=v).to_parameter_msg() for n, v in values.items()])
    return call(rig, SetParameters, "/superpoint/set_parameters", request).results


def transit(rig: SoakRig, *transitions: int) -> None:
    """One after the other; Failure for one that fails."""
    for transition in transitions:
        request = ChangeState.Request(transition=Transition(id=transition))
        if not call(rig, ChangeState, "/superpoint/change_state", request).success:
            raise Failure(f"transition {transition} failed")


def call(rig: SoakRig, kind: Any, name: str, request: Any) -> Any:
    """The answer of a service."""
    client = rig.client.create_client(kind, name)
    try:
        rig.until(client.service_is_ready, f"the service {name}")
        future = client.call_async(request)
        rig.until(future.done, f"an answer of {name}")
        return future.result()
    finally:
        rig.client.destroy_client(client)
