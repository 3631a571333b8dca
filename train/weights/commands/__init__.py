"""`instructsam train merge` and `export`: their arguments, without importing torch."""
