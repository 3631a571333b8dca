"""Annotation files to training batches."""
