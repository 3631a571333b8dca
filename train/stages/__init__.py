"""Training stages: each is a module with its dataset, collator and preview.

A recipe names them `pixels` (dense.py), `base` (detector.py) and `instruct` (instruct.py).
"""
