"""Running a stage: recipe in, checkpoints and logs out."""
