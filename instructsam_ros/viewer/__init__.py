"""Answers in the viewer Rerun, with images, depth and scores over time."""
