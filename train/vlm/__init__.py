"""Vision-language models behind an OpenAI-compatible endpoint, and numbered marks on images for them."""
