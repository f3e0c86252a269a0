"""Lineage both ways: which rows made an adapter, which adapters a user's rows went into, and how to erase them.

A run directory holds the rows themselves; the gateway holds their ids and digests for every version that was published
to it. Erasing removes a user's rows from both, and lists the versions to train again.
"""

from trainer.lineage.traces import Traces, erase, rows_of, traces

__all__ = ["Traces", "erase", "rows_of", "traces"]
