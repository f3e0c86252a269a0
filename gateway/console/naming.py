"""What a tenant may choose from in a form: its versions, aliases and metrics, as the snapshot has them. No page."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.domain import BASE, Metric, MetricKind
from gateway.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Version:
    """`served` is how records name it ("acme/support@1", "base"), `model` how a request does ("support@1", "base").
    `verdict` is its gate's, where it withholds it."""

    served: str
    model: str
    retired: bool = False
    verdict: str | None = None

    @property
    def label(self) -> str:
        """As people choose it."""
        remarks = [self.verdict or "", "retired" if self.retired else ""]
        told = ", ".join(filter(None, remarks))
        return f"{self.model} ({told})" if told else self.model


def versions(snapshot: Snapshot, tenant: str, *, retired: bool = False) -> list[Version]:
    """The base first, then by name, the newest version first; `retired` ones only if asked for."""
    own = [one for one in snapshot.adapters.values() if one.ref.tenant == tenant and (retired or not one.retired)]
    own.sort(key=lambda one: (one.ref.name, -one.ref.version))
    return [
        Version(BASE, BASE),
        *(
            Version(
                str(one.ref),
                f"{one.ref.name}@{one.ref.version}",
                one.retired,
                None if one.servable or one.retired else one.verdict,
            )
            for one in own
        ),
    ]


def aliases(snapshot: Snapshot, tenant: str) -> list[str]:
    """By name."""
    return sorted(name for owner, name in snapshot.aliases if owner == tenant)


def metrics(snapshot: Snapshot, tenant: str, *kinds: MetricKind) -> list[Metric]:
    """By name; only those of these kinds, where any are named."""
    own = (one for (owner, _), one in snapshot.metrics.items() if owner == tenant and (not kinds or one.kind in kinds))
    return sorted(own, key=lambda one: one.name)
