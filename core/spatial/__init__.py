"""Masks and depth to 3D: camera model, object geometry, grasp candidates and multi-object tracking."""
