"""Results in a bag drawn on their images: videos, animations, strips of images and recordings for Rerun."""
