"""Figures for people: console tables and HTML reports."""
