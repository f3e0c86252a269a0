"""Measure: remember what was served, take what users say about it, compare, and give it back as training rows."""
