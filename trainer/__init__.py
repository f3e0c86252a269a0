"""The trainer: examples and feedback in, a published adapter out."""
