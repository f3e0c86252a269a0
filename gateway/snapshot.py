"""One immutable picture of all that the data plane may know, and the single cell that holds the current one.

A request takes the picture once, at the door, and passes it on: it never sees half of a change (DESIGN §3.1).
Whoever builds pictures (the control plane's feed) replaces the cell's pointer; nobody edits a picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from adapters.ref import AdapterRef
from gateway.domain import Adapter, Alias, ApiKey, Metric, Tenant


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`version` grows by one with each committed change of the control plane; 0 is "nothing read yet".

    `keys` maps SHA-256 digests (32 bytes) of API keys. `secret` is the installation's key for inference ids, units and
    cache salts. `preparing` holds versions that a swap wants resident before it moves an alias to them. `base_model` is
    the served model's public name, where it is known.
    """

    version: int = 0
    secret: bytes = b""
    tenants: Mapping[str, Tenant] = field(default_factory=dict)
    keys: Mapping[bytes, ApiKey] = field(default_factory=dict)
    aliases: Mapping[tuple[str, str], Alias] = field(default_factory=dict)
    adapters: Mapping[AdapterRef, Adapter] = field(default_factory=dict)
    metrics: Mapping[tuple[str, str], Metric] = field(default_factory=dict)
    preparing: frozenset[AdapterRef] = frozenset()
    base_model: str = ""

    def serving(self) -> frozenset[AdapterRef]:
        """The versions some alias sends traffic to now: an engine without them is not ready."""
        return frozenset(v.ref for a in self.aliases.values() for v in a.variants if v.ref is not None)

    def wanted(self) -> frozenset[AdapterRef]:
        """The versions an engine should hold: those serving, those a swap is preparing, and the shadows' candidates."""
        return self.serving() | self.preparing | self.shadowing()

    def shadowing(self) -> frozenset[AdapterRef]:
        """The candidates some alias mirrors requests to: an engine without them is as ready as one with them."""
        shadows = (alias.shadow for alias in self.aliases.values())
        return frozenset(shadow.ref for shadow in shadows if shadow is not None and shadow.ref is not None)


@dataclass(slots=True)
class Current:
    """The cell. `stale`: the database cannot be reached now; known keys go on working, unknown ones get 503."""

    snapshot: Snapshot = field(default_factory=Snapshot)
    stale: bool = True
