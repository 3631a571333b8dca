"""Optimizers and averages of weights, which training and its checkpoints share."""
