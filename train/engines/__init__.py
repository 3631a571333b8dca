"""Other engines for a trained model: autoregressive mask tokens without a query bank, and concept prompting."""
