"""Runners: rows through the stages, and their files on disk."""
