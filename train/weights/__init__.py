"""Model folder in, model folder out: merging, exporting, resizing and initialising weights."""
