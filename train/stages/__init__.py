"""Training stages: each is a module with its dataset, collator and preview."""
