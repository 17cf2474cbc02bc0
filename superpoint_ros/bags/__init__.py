"""Bags (rosbag2, sqlite3 or mcap), read and written without ROS; damaged ones as far as they go."""
