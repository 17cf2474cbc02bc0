"""The ROS 2 node: lifecycle, subscriptions, QoS, publishers, diagnostics, clock."""
