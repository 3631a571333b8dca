"""ROS 2 nodes around instructsam.core, and the generated messages (instructsam_ros.msg)."""
