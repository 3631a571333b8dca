"""The parts of the search for grasps: segments between the fingers, and the hidden part of round objects."""
