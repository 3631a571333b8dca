"""Cameras without hardware: replayed recordings and a rendered RGB-D camera."""
