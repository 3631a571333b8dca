"""Scenes of the tabletop world: layout, room, camera, rendering and sensor model."""
