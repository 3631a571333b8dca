"""Scenes of the tabletop world: layout, motion, room, rendering and camera model."""
