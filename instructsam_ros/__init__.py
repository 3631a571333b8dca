"""ROS 2 nodes and tools around instructsam.core, and the generated messages (instructsam_ros.msg)."""
