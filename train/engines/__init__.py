"""Other ways to query a trained model: without a query bank, and by concept prompting. See core.engine.InstructSAM."""
