"""`instructsam demo`: camera, node and user as three processes."""
