"""The gateway: an OpenAI-compatible door in front of vLLM, with tenants, aliases, experiments and feedback."""
