"""Results for people: overlays, text on images and terminal tables."""
