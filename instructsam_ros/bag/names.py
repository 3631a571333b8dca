"""Names that `instructsam bag` shows in its help, importable without rclpy."""

from instructsam_ros.viewer.sinks import RECORDING_SUFFIX

DEFAULT_NAME = '/perception'
"""The node's default name, with which its topics begin."""

SHOW_SUFFIXES = ('.mp4', '.gif', '.png', RECORDING_SUFFIX)
"""Endings of the files that `instructsam bag show` writes: a video, an animation, a strip, a recording for Rerun."""

TIMELINE_EXAMPLE = '"- {at: 0, instruction: the red mug}"'
"""A file of instructions and the times at which they start."""
