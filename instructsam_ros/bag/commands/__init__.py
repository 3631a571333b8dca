"""`instructsam bag annotate`, `show` and `verify`: their arguments, without importing rclpy."""
