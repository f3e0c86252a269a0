"""A request's second way, as far as it can be told beforehand and afterwards: which are mirrored, what the candidate is
asked, and what is remembered of its answer. Bytes and nouns in, a record out; it knows no engine and does nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol

from msgspec.structs import replace

from adapters.ref import AdapterRef
from gateway.domain import BASE, SHADOW, Alias, ApiKey, Assignment, Inference, Reason, Shadow, Tenant
from gateway.errors import EngineTimeout, GatewayError
from gateway.identity import cache_salt, new_inference_id, unit_of
from gateway.serving.dealing import share
from gateway.serving.endpoints import Endpoint
from gateway.serving.exchange import MOST_KEPT
from gateway.serving.request import Request
from gateway.snapshot import Snapshot

_OPERATIONS = frozenset(("chat", "text_completion"))
_STREAMING = frozenset(("stream", "stream_options"))


class Sent(Protocol):
    """What the client sent."""

    @property
    def body(self) -> bytes: ...


class Ended(Protocol):
    """A request that is over, as `Exchange` has it."""

    @property
    def call(self) -> Sent: ...

    @property
    def snapshot(self) -> Snapshot: ...
    @property
    def endpoint(self) -> Endpoint: ...
    @property
    def tenant(self) -> Tenant | None: ...
    @property
    def key(self) -> ApiKey | None: ...
    @property
    def id(self) -> str: ...
    @property
    def request(self) -> Request | None: ...
    @property
    def assignment(self) -> Assignment | None: ...
    @property
    def targeting_key(self) -> str: ...
    @property
    def episode(self) -> str | None: ...
    @property
    def status(self) -> int: ...
    @property
    def outcome(self) -> str: ...
    @property
    def keeps(self) -> bool: ...


class Mirror:
    """One request on its second way: the engine's body and the record so far. `model` is the candidate's name there."""

    __slots__ = ("body", "digest", "endpoint", "keeps", "row")

    def __init__(self, exchange: Ended, shadow: Shadow, model: str) -> None:
        tenant, snapshot = exchange.tenant, exchange.snapshot
        assert tenant is not None and exchange.request is not None  # it was answered
        self.endpoint, self.keeps = exchange.endpoint, exchange.keeps
        request = unary(exchange.request)
        self.row = _row(exchange, request, shadow)
        self.body = request.body(model, cache_salt(snapshot.secret, tenant.name), self.row.id)
        adapter = snapshot.adapters.get(shadow.ref) if shadow.ref is not None else None
        self.digest = adapter.digest if adapter is not None else None

    def served(self, body: bytes) -> None:
        """Note the candidate's answer."""
        row = self.row
        row.served, row.served_digest = row.assigned, self.digest
        notes = self.endpoint.answers.of_body(body, keep=self.keeps and len(body) <= MOST_KEPT)
        row.finish_reason, row.answer = notes.finish_reason, notes.text
        row.input_tokens, row.output_tokens = notes.input_tokens, notes.output_tokens

    def failed(self, error: GatewayError) -> None:
        """Note that there is none."""
        row = self.row
        row.status = error.status
        if isinstance(error, EngineTimeout):
            row.outcome = "timeout"
        else:
            row.outcome = "client_error" if error.status < 500 else "engine_error"


def chosen(alias: Alias, shadow: Shadow, inference_id: str) -> bool:
    """Whether a request falls into the mirrored share. Pure, and unrelated to the variant that its user drew."""
    return share(f"{alias.salt}:{SHADOW}", alias.tenant, inference_id) < shadow.share


def comparable(exchange: Ended, candidate: AdapterRef | None) -> bool:
    """Whether there is something to compare: a whole answer, from generation, drawn for the alias, not the candidate's
    own already, and a client's, not an evaluation's."""
    assignment, tenant = exchange.assignment, exchange.tenant
    return (
        exchange.status == 200
        and tenant is not None
        and not tenant.evaluates
        and exchange.outcome == "ok"
        and assignment is not None
        and assignment.reason is not Reason.TARGETING_MATCH
        and assignment.ref != candidate
        and exchange.endpoint.operation in _OPERATIONS
    )


def unary(request: Request) -> Request:
    """The same request for an answer in one piece."""
    fields = {name: value for name, value in request.fields.items() if name not in _STREAMING}
    return replace(request, stream=False, fields=fields, sampling=None)


def _row(exchange: Ended, request: Request, shadow: Shadow) -> Inference:
    """The record, as far as it is known before the candidate has answered."""
    tenant, key, assignment, snapshot = exchange.tenant, exchange.key, exchange.assignment, exchange.snapshot
    assert tenant is not None and key is not None and assignment is not None  # it was answered
    return Inference(
        id=new_inference_id(snapshot.secret, tenant.name),
        tenant=tenant.name,
        key_id=key.id,
        created_at=datetime.now(UTC),
        endpoint=exchange.endpoint.path,
        alias=assignment.alias,
        alias_revision=assignment.revision,
        experiment=None,
        variant=SHADOW,
        assigned=str(shadow.ref) if shadow.ref is not None else BASE,
        served=None,
        served_digest=None,
        reason=SHADOW,
        propensity=shadow.share,
        unit=unit_of(snapshot.secret, tenant.name, exchange.targeting_key),
        episode=exchange.episode,
        stream=False,
        params=request.params(),
        status=200,
        outcome="ok",
        shadow_of=exchange.id,
        messages=request.messages() if exchange.keeps and len(exchange.call.body) <= MOST_KEPT else None,
    )
