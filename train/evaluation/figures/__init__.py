"""Figures of outcomes: metrics, confidence intervals, summaries and comparisons."""
