"""The seam to vLLM: everything that knows how an engine is spoken to, started, or imitated."""
