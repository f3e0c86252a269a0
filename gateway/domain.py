# long because: the nouns of every room, in one place.
"""The nouns of the gateway, frozen: what travels between rooms. It knows nothing of HTTP, SQL or vLLM.

Words are DESIGN §5's. A tenant is known by its name everywhere; an adapter version by its `AdapterRef`; `None` in place
of a ref is the base model, which is an ordinary variant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from adapters.ref import AdapterRef

BASE = "base"
"""What a client, a variant or an alias calls the base model."""

WITHHELD = frozenset(("refused", "undecided"))
"""The verdicts with which a version is registered, listed and evaluated, and never serves anybody."""

SHADOW = "shadow"
"""The variant and the reason of a mirrored request, in its record."""


class Scope(StrEnum):
    """What an API key may do."""

    INFERENCE = "inference"
    FEEDBACK = "feedback"
    ADMIN = "admin"
    EVALUATE = "evaluate"
    """Beside `inference`: versions that are withheld from others, and log-probabilities of prompts."""


class Fallback(StrEnum):
    """What an alias does when the assigned version cannot be served (DESIGN §3.7)."""

    ERROR = "error"
    PREVIOUS = "previous"
    BASE = "base"


class Reason(StrEnum):
    """Why a variant was chosen, in OpenTelemetry's words for feature flags."""

    STATIC = "static"  # the alias has one variant
    SPLIT = "split"  # the targeting key's hash fell into the variant's share
    TARGETING_MATCH = "targeting_match"  # the client named a version, a variant or the base
    CACHED = "cached"  # the episode stays on the version it began with


class MetricKind(StrEnum):
    BOOLEAN = "boolean"
    FLOAT = "float"
    COMMENT = "comment"
    COUNT = "count"  # a whole number ≥ 0, summed per unit; a unit that says nothing counts as 0
    RATIO = "ratio"  # of two metrics' sums per unit; never said, always worked out
    DEMONSTRATION = "demonstration"
    PREFERENCE = "preference"  # the judged answer was better than another one, whose id is the value


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a tenant or a key may use; None: no limit. Each is a whole number ≥ 1.

    A minute's limits are rates that refill all the time; a day and a month are UTC's calendar.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None


@dataclass(frozen=True, slots=True)
class Tenant:
    """`store_content`: prompts and answers may be kept. `allow_pinning`: clients may name a version or a variant.

    `limits` is None where nothing is limited. `weight` (> 0) is its share of a full engine, relative to the others'.
    `evaluates` is never a tenant's own: it is what a key of it with the scope `evaluate` stands for.
    """

    name: str
    store_content: bool = False
    allow_pinning: bool = True
    limits: Limits | None = None
    weight: float = 1.0
    evaluates: bool = False


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as the data plane knows it: never the secret, only what its SHA-256 opens.

    `limits` hold beside the tenant's: a request must pass both.
    """

    id: str
    tenant: str
    scopes: frozenset[Scope]
    expires_at: datetime | None = None
    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class Adapter:
    """A registered adapter version; `digest` is its content address. `verdict` is its gate's ("accepted", "refused",
    "undecided", or None), `reason` its sentence, `continues` the version whose weights it was trained on from."""

    ref: AdapterRef
    digest: str
    rank: int
    base_model: str
    retired: bool = False
    verdict: str | None = None
    reason: str | None = None
    continues: AdapterRef | None = None

    @property
    def servable(self) -> bool:
        """Whether traffic may come to it."""
        return not self.retired and self.verdict not in WITHHELD


@dataclass(frozen=True, slots=True)
class Variant:
    """One arm: a name, a relative weight (> 0 to receive traffic) and what it serves (`None`: the base model)."""

    name: str
    weight: float
    ref: AdapterRef | None


@dataclass(frozen=True, slots=True)
class Shadow:
    """A candidate that answers a share (0 < share ≤ 1) of an alias's requests a second time, shown to nobody."""

    ref: AdapterRef | None
    share: float


class Unit(StrEnum):
    """What an experiment assigns to a variant, and counts as one."""

    TARGETING_KEY = "targeting_key"
    EPISODE = "episode"
    INFERENCE = "inference"


@dataclass(frozen=True, slots=True)
class Split:
    """How a running experiment deals out an alias's units, as routing sees it.

    A unit takes part if its hash under `salt` lies in one of `stretches` (of [0, 1), half-open, disjoint); experiments
    of one layer share the salt and hold disjoint stretches. Whoever takes no part gets the first variant, outside of
    the experiment. Within, its hash under the alias's salt falls into one of `buckets`: (end, variant's name), ends
    rising to 1. `overrides` maps testers (`identity.unit_of` their targeting keys) to a variant's name.
    """

    unit: Unit
    salt: str
    stretches: tuple[tuple[float, float], ...]
    buckets: tuple[tuple[float, str], ...]
    overrides: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Alias:
    """The mutable pointer that a client puts in `model`.

    `revision` grows by one with each commit; `previous` holds the variants of the revision before, for rollback and for
    the `previous` fallback; `salt` keys the sticky hash and changes only when a new experiment begins.
    """

    tenant: str
    name: str
    revision: int
    variants: tuple[Variant, ...]
    salt: str
    previous: tuple[Variant, ...] | None = None
    fallback: Fallback = Fallback.ERROR
    experiment: str | None = None
    """Id of the running experiment, if there is one."""
    split: Split | None = None
    """How that one deals out users; None while it is paused or has not come to users yet (the first variant serves)."""
    shadow: Shadow | None = None
    """Takes no part in assignment: what a client gets never depends on it."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """The router's verdict: what this request is to be served by, and with which probability it came to be so.

    `alias` is the alias's name ("base" when the client named the base model itself, with `revision` 0).
    `ref` is what was assigned; what was served can differ (fallback) and is recorded apart.
    """

    alias: str
    revision: int
    variant: str
    ref: AdapterRef | None
    reason: Reason
    propensity: float
    experiment: str | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """A declared metric. `optimize` is "max" or "min" and means nothing for words; `unit` is what a person reads behind
    the number ("ms", "EUR"). A ratio names the metrics that it divides."""

    tenant: str
    name: str
    kind: MetricKind
    optimize: str = "max"
    description: str = ""
    unit: str = ""
    numerator: str | None = None
    denominator: str | None = None


@dataclass(frozen=True, slots=True)
class Swapped:
    """What a committed swap came to: the alias as it is now and the milliseconds of each phase
    (`prepare`, `commit`, `acknowledge`, `total`)."""

    alias: Alias
    timings_ms: dict[str, float]


class Inference(msgspec.Struct, gc=False):
    """One request as it is remembered. Times are UTC, durations milliseconds; `None`: not known or not applicable.

    `unit` is the keyed hash of the targeting key (never the key itself). `outcome` is "ok", "client_error",
    "engine_error", "timeout" or "disconnected". `messages` and `answer` are filled only for tenants that store content;
    `messages` is the request's `messages` (or `[{"role": "user", "content": prompt}]` for /v1/completions).
    `shadow_of` is the id of the request that this one repeated for a shadow's candidate; None for what clients sent. A
    mirrored request belongs to no experiment, and its propensity is the share that is mirrored.

    A Struct and not a dataclass: it is made for every request and encoded as JSON, which takes 2 µs instead of 9.
    """

    id: str
    tenant: str
    key_id: str
    created_at: datetime
    endpoint: str
    alias: str
    alias_revision: int
    experiment: str | None
    variant: str
    assigned: str
    served: str | None
    served_digest: str | None
    reason: str
    propensity: float
    unit: str
    episode: str | None
    stream: bool
    params: dict[str, Any]
    status: int
    outcome: str
    finish_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    ttft_ms: float | None = None
    duration_ms: float | None = None
    overhead_ms: float | None = None
    trace_id: str | None = None
    span_id: str | None = None
    shadow_of: str | None = None
    messages: list[dict[str, Any]] | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """One judgement of a live answer. Exactly one of `inference_id` and `episode_id` is set.

    `value` fits the metric's kind: bool, float, or str (the comment, the ideal answer of a demonstration, or of a
    preference the bare id of the answer that lost).
    `correction` is the ideal answer that may come with any metric.
    """

    id: str
    tenant: str
    metric: str
    value: bool | float | str
    created_at: datetime
    inference_id: str | None = None
    episode_id: str | None = None
    comment: str | None = None
    correction: str | None = None
    source: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What one gateway worker says about itself, so that a swap can wait for everybody (DESIGN §3.3).

    `resident` and `leased` are adapter refs as text; `failed` maps a ref to the sentence that says why it could not be
    prepared. A worker that stops renewing its report has left.
    """

    worker: str
    snapshot_version: int
    ready: bool
    engine_boot: str | None
    resident: frozenset[str] = frozenset()
    leased: frozenset[str] = frozenset()
    failed: dict[str, str] = field(default_factory=dict)
