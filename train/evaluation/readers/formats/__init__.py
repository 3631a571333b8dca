"""Files that several benchmarks share the form of: JSON, pickles, outlines, image folders and records."""
