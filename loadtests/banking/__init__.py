"""The trainer's whole story on banking77: supervised, thumbs, preferences and a poisoned round, each through the gate.

It speaks to a real gateway and a real vLLM as its users would: HTTP and `trainer run`.
"""
