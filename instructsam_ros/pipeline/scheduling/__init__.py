"""Scheduling: queues of frames, instructions and goals, and the thread that runs the model."""
