"""Simulated experiments by the thousand, through the very functions that a verdict is made with.

Every experiment is watched all the time: what counts is whether it *ever* says something wrong. Each test prints what
it measured (`pytest -s`); docs/statistics.md has the figures.
"""
