"""The recipe of the small model from nothing to a measured model: `scripts/train_small_model`."""
