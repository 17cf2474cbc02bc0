"""`superpoint extract`: the node's work over bags, without ROS."""
