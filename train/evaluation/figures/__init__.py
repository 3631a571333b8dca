"""Outcomes to figures: metrics, confidence intervals, summaries and comparisons."""
