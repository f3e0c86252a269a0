"""The shapes that several edges share: names, variants, adapter refs as clients write them, and lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat

from adapters.errors import InvalidRef
from adapters.ref import AdapterRef, is_slug
from gateway.control.buckets import measure, shares
from gateway.control.limits import MOST
from gateway.control.names import MAX_VARIANTS, unknown_adapter
from gateway.domain import BASE, Alias, Limits, Variant
from gateway.errors import InvalidRequest
from gateway.experiment import Experiment

MAX_PAGE = 1000


def _slug(text: str) -> str:
    if not is_slug(text):
        raise ValueError("use 1 to 64 of a-z 0-9 . _ -, beginning and ending with a letter or digit")
    return text


Name = Annotated[str, Field(max_length=64), AfterValidator(_slug)]
"""A tenant's, adapter's, alias's, variant's or metric's name."""

RefText = Annotated[str, Field(min_length=1, max_length=160)]


class Body(BaseModel):
    """Of every request: exact types, and no field that we do not know."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class VariantBody(Body):
    """One arm. Weights are relative; 0 means no traffic, but clients may still name the variant."""

    name: Name = Field(examples=["tuned"])
    weight: FiniteFloat = Field(ge=0, le=1_000_000, examples=[1])
    ref: RefText | None = Field(
        None, description="`support@1`, `acme/support@1` or `base`.", examples=["acme/support@1"]
    )


def _most(name: str) -> Any:
    return Field(None, ge=1, le=MOST[name])


class LimitsBody(Body):
    """What is left out stays as it is, null removes a limit. A minute's limits refill all the time; days and months
    are UTC's. Tokens are the prompt's and the answer's."""

    requests_per_minute: int | None = _most("requests_per_minute")
    tokens_per_minute: int | None = _most("tokens_per_minute")
    concurrent_requests: int | None = _most("concurrent_requests")
    tokens_per_day: int | None = _most("tokens_per_day")
    tokens_per_month: int | None = _most("tokens_per_month")

    def changes(self) -> dict[str, int | None]:
        """Those that were given."""
        return self.model_dump(exclude_unset=True)


def limits_row(limits: Limits | None) -> dict[str, int]:
    """Those that are set."""
    return {name: value for name, value in asdict(limits).items() if value is not None} if limits else {}


Variants = Annotated[list[VariantBody], Field(min_length=1, max_length=MAX_VARIANTS)]


def variants_of(tenant: str, bodies: Sequence[VariantBody]) -> tuple[Variant, ...]:
    """As the domain has them. Whether traffic can be split among them is the control plane's to judge."""
    return tuple(Variant(body.name, body.weight, own_ref(tenant, body.ref or BASE)) for body in bodies)


def own_ref(tenant: str, text: str) -> AdapterRef | None:
    """The adapter version a tenant's admin means by `support@1` or `acme/support@1`; None for `base`.

    Raises `NotFound` for another tenant's, whether or not it exists, and `InvalidRequest` for what is no ref.
    """
    if text == BASE:
        return None
    try:
        ref = AdapterRef.parse(text if "/" in text else f"{tenant}/{text}")
    except InvalidRef as error:
        raise InvalidRequest(str(error), param="ref") from error
    if ref.tenant != tenant:
        raise unknown_adapter(ref)
    return ref


def own_version(tenant: str, text: str) -> AdapterRef:
    """As `own_ref`, where the base model will not do."""
    ref = own_ref(tenant, text)
    if ref is None:
        raise InvalidRequest(
            "The base model is no adapter version.", remedy="Name one, such as support@1.", param="ref"
        )
    return ref


def listed(rows: Sequence[dict[str, Any]], *, more: bool = False, after: str | None = None) -> dict[str, Any]:
    """A list as OpenAI's API has it. `next` is what to send as `after` for the page that follows."""
    return {"object": "list", "data": list(rows), "has_more": more, "next": after if more else None}


def page(rows: Sequence[dict[str, Any]], *, key: str, limit: int, after: str | None) -> dict[str, Any]:
    """The `limit` rows that follow the one whose `key` is `after`. Raises `InvalidRequest` if there is none such."""
    start = 0
    if after is not None:
        places = [place for place, row in enumerate(rows) if row[key] == after]
        if not places:
            raise InvalidRequest(
                "Nothing on this list has that id.", remedy="Send the `next` of a page.", param="after"
            )
        start = places[0] + 1
    chosen = rows[start : start + limit]
    more = len(rows) > start + limit
    return listed(chosen, more=more, after=chosen[-1][key] if chosen else None)


def variant_row(variant: Variant) -> dict[str, Any]:
    return {"name": variant.name, "weight": variant.weight, "ref": str(variant.ref) if variant.ref else BASE}


def alias_row(alias: Alias) -> dict[str, Any]:
    """The salt stays inside: with it, anybody could choose a targeting key that falls into a wanted variant."""
    return {
        "object": "alias",
        "tenant": alias.tenant,
        "name": alias.name,
        "revision": alias.revision,
        "variants": [variant_row(variant) for variant in alias.variants],
        "previous": None if alias.previous is None else [variant_row(variant) for variant in alias.previous],
        "fallback": alias.fallback.value,
        "experiment": alias.experiment,
        "shadow": shadow_row(alias),
    }


def shadow_row(alias: Alias) -> dict[str, Any] | None:
    """Where a share of an alias's requests is mirrored to, if anywhere."""
    shadow = alias.shadow
    return {"ref": str(shadow.ref) if shadow.ref else BASE, "share": shadow.share} if shadow is not None else None


def experiment_row(experiment: Experiment) -> dict[str, Any]:
    """The salts and the testers' units stay inside. `coverage_now` is the share of the units that takes part, `shares`
    how those are dealt out; both say nothing while nobody takes part."""
    split, ended = (None if experiment.paused else experiment.split), experiment.ended_at
    return {
        "object": "experiment",
        "id": experiment.id,
        "tenant": experiment.tenant,
        "alias": experiment.alias,
        "name": experiment.name,
        "hypothesis": experiment.hypothesis,
        "owner": experiment.owner,
        "variants": [variant_row(variant) for variant in experiment.variants],
        "metric": experiment.plan.primary,
        "plan": asdict(experiment.plan),
        "unit": experiment.unit.value,
        "status": experiment.status,
        "stage": experiment.stage.value,
        "paused": experiment.paused,
        "coverage": experiment.coverage,
        "canary_coverage": experiment.canary_coverage,
        "coverage_now": measure(split.stretches) if split is not None else 0.0,
        "shares": shares(split.buckets) if split is not None else {},
        "layer": experiment.layer,
        "testers": len(experiment.split.overrides) if experiment.split is not None else 0,
        "epochs": [{**asdict(epoch), "since": epoch.since.isoformat()} for epoch in experiment.epochs],
        "started_at": experiment.started_at.isoformat(),
        "stopped_at": ended.isoformat() if ended else None,
        "stop_reason": experiment.end_reason,
    }
