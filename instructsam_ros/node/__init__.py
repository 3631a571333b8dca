"""The lifecycle node around the pipeline: everything that touches rclpy."""
