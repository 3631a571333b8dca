"""One image and one instruction to one answer: threads and locks, but no rclpy node."""
