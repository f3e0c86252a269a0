"""The trainer beside stock TRL: the same rows, model and seeds, in turns, counted in CPU-seconds. It imports both."""
