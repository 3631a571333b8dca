"""Human-readable results: overlays, text on images and terminal tables."""
