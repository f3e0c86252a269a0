"""The gateway beside other proxies in front of one mock upstream: what each spends on a request and on a chunk.

    python -m loadtests.peers                       # vllm-router, smg and LiteLLM, each from its registry into a venv
    python -m loadtests.peers --only vllm-router    # a quick look

The peers run as their manuals start them, with nothing on. The gateway runs as a user gets it, with everything on. The
bare proxy is the floor in Python. Only HTTP and the kernel's accounting are used, so anybody with pip can repeat it.
"""
