"""Times of the network's stages on this machine, relative to its peak rates of computing and of reading memory.

stages          the stages of one image and one instruction, each alone
machine         the machine's facts, and the products and reads that measure its rates
measure         counts of operations, and times of stages in turn
report          the figures as a table and as JSON
run             all of it, on an engine and an image
random_weights  an engine of the published size without a checkpoint
"""
