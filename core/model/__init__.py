"""The InstructSAM network: configuration, checkpoints, token sequences, Qwen3-VL, the query bank and SAM3."""
