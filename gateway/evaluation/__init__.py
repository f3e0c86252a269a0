"""EVALUATE: each running experiment is judged now and then, its plan's rules are followed, and who must know is told.

A layer of its own above feedback (which measures) and control (which acts), since neither may know the other; the API
and the console stand above it, because they show the same verdicts. One worker of an installation does it at a time.
"""
