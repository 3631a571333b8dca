"""Stages of the network with fixed shapes, which a GPU replays as CUDA graphs, without a launch per operation.

capture          a function of tensors with buffers for its inputs and outputs, recorded once per bucket of shapes
static_sequence  the language model's passes on a key-value cache at a fixed address
stages           all stages of an engine, and their capture when it is loaded
"""
