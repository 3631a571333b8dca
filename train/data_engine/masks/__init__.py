"""Stage masks: one mask per box, by a model that encodes each image once."""
