"""Measurements on the real engine that anyone can repeat: how fast a swap is, and what the gateway adds to vLLM."""
