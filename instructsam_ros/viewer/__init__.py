"""Answers in the viewer Rerun, with images, depth and scores over time, and the `instructsam watch` command."""
