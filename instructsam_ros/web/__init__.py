"""The ROS side of `instructsam web`: a running node as the source of answers, and the images of its camera."""
