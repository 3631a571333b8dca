"""Answering one instruction about one image, without an rclpy node."""
