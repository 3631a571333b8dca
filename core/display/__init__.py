"""Human-readable results: overlays, text on images, JPEG files for pages and terminal tables."""
