"""Conversions between ROS messages and NumPy arrays or core types: pure functions, without a node or a thread."""
