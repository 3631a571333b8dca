"""Running a model on a benchmark: queries in, outcomes on disk."""
