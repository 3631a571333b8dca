"""Running a model over a benchmark: queries in, outcomes on disk."""
