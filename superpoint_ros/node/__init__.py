"""The ROS 2 node. Modules here that do not import rclpy also serve bags on machines without ROS."""
