"""Checks of an installation, each of which says what is fine, or what is wrong and what to do."""
