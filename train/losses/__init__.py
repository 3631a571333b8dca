"""Training losses: what is minimised, independent of who calls it."""
