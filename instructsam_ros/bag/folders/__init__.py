"""Folders with many bags: `instructsam bag annotate` of all of them, one after the other or on Ray."""
