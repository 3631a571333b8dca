"""One image and one instruction to one answer, without an rclpy node."""
