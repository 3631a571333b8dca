"""The ROS side of `instructsam doctor`: the environment of a process, and the topics that a node reads."""
