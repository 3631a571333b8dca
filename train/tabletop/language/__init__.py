"""Instructions about a scene: programs, their wordings and their answers."""
