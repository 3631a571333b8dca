"""Untrusted files: regular files only, and images whose header is checked before they are decoded."""
