"""ROS messages to and from NumPy arrays and core types: pure functions, without a node or a thread."""
