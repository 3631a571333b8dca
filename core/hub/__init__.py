"""Models in the hub's cache, and facts about a model folder without reading its weights."""
