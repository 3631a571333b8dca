"""Instructions about a scene: their meaning as programs, their wordings and their answers."""
