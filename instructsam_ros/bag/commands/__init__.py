"""`instructsam bag annotate` and `show`: their arguments, without importing rclpy."""
