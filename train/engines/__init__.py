"""Other ways to query a trained model."""
