"""One camera's stream between picture and message, without ROS: the node and the offline tools run the same one."""
