"""`ros2 run superpoint_ros superpoint_node`, or `python -m superpoint_ros.node`."""

from __future__ import annotations

import os
import sys

from superpoint_ros.interrupts import ending_at_once
from superpoint_ros.node.transport import make_room


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; 1 if it could not start or had to end."""
    # Torch's threads would spin after each piece of work, on cores that the rest of the robot needs: where all are
    # busy, matching takes twice as long. Read when torch is imported, so before the node is.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with ending_at_once():
        import rclpy
        from rclpy.executors import ExternalShutdownException

        from superpoint_ros.frontend.parameter_file import robot_wide_names
        from superpoint_ros.network.engines.devices import DeviceLost
        from superpoint_ros.node.superpoint_node import SuperPointNode

    node = None
    try:
        make_room()
        rclpy.init(args=args)
    except KeyboardInterrupt:
        return 0
    try:
        node = SuperPointNode(robot_wide_names(sys.argv if args is None else args))
        if node.parameters.autostart and not node.start():
            return int(rclpy.ok())  # a signal is no failure
        rclpy.spin(node)
    except ValueError as error:
        # a parameter, before there is a node to log it
        print(f"superpoint_node: {error}", file=sys.stderr)
        return 1
    except DeviceLost:
        return 1  # the node has logged it
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        # SIGTERM may invalidate the context while spin is making a wait set, which raises RCLError
        if rclpy.ok():
            raise
    finally:
        with ending_at_once():  # a second signal does not wait for the frames in work
            if node is not None:
                node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
