"""Models that are at hand: those in the hub's cache, and facts about a model's folder without its weights."""
