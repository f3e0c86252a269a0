"""The contract between the trainer and the gateway: what an adapter is, where it lives, what an example is.

It imports neither side, nor torch, vllm or fastapi: standard library, pydantic and fsspec only.
"""
