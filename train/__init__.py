"""Training of InstructSAM; builds on instructsam.core."""
