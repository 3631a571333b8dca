"""`instructsam train merge`, `export`, `deepen` and `stitch`: their arguments, without importing torch."""
