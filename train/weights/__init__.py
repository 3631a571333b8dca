"""Model folder in, model folder out."""
