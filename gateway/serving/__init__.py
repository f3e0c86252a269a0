"""The data plane: authenticate, assign, lease, forward, record. It sees memory and the engine, nothing else."""
