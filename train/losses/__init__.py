"""Training losses, independent of the stages that use them."""
