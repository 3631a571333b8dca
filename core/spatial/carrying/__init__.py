"""Masks at camera rate: the instances of an answer carried to later images by optical flow."""
