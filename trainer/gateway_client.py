"""The gateway as the trainer sees it: calls of its control plane over HTTP. It knows nothing of training.

Neither the key nor the gateway's address ever enters an error that is written into a run directory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from adapters.lineage import LineageRow, read_lineage
from trainer.errors import GatewayFailed, NotServable
from trainer.settings.access import GatewayAccess

_QUICK, _SLOW = 10.0, 300.0
_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What the engine behind the gateway can serve. `max_rank` 0: adapters cannot be put on it at all.

    `base_revision` and `context` (tokens) are None where the gateway does not know them; `kind` "fake" is no model.
    """

    base_model: str
    max_rank: int
    base_revision: str | None = None
    context: int | None = None
    kind: str = "vllm"


@dataclass(frozen=True, slots=True)
class Registered:
    ref: str
    digest: str


class Gateway:
    """A connection to `access.url` with `access.key`. All methods raise `GatewayFailed` with what to do."""

    def __init__(self, access: GatewayAccess) -> None:
        if access.url is None or access.key is None:
            raise GatewayFailed("the gateway's address or key is missing", "set GATEWAY_URL and GATEWAY_KEY")
        headers = {"authorization": f"Bearer {access.key.get_secret_value()}"}
        self._http = httpx.Client(base_url=f"{access.url}/admin/v1", headers=headers, timeout=_QUICK)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def limits(self) -> EngineLimits:
        """What the engine can serve."""
        reply = self._json("GET", "/engine")
        try:
            revision, context = reply.get("base_revision"), reply.get("max_model_len")
            limits = EngineLimits(
                str(reply["base_model"]), int(reply["max_rank"]), revision, context, str(reply.get("kind", "vllm"))
            )
            ready = bool(reply["ready"])
        except (KeyError, TypeError, ValueError) as error:
            raise GatewayFailed("the gateway describes no engine", "is it this project's gateway?") from error
        if limits.max_rank == 0 and not ready:
            raise GatewayFailed("the gateway's engine is not up yet", "run the same command again in a minute")
        return limits

    def judged(
        self, tenant: str, alias: str, *, metric: str | None = None, since: datetime | None = None
    ) -> Iterator[str]:
        """An alias's answers with all that was said of them (`adapters.Judged`, one a line), as they arrive."""
        asked = {"tenant": tenant, "alias": alias, "metric": metric, "since": since.isoformat() if since else None}
        params = {key: value for key, value in asked.items() if value is not None}
        return self._lines("/export", {"format": "judged", **params})

    def serves(self, tenant: str, alias: str) -> str | None:
        """The version that answers most of an alias's requests, and not the base where both do; None: the base."""
        variants = self._json("GET", f"/tenants/{tenant}/aliases/{alias}").get("variants") or [{"ref": "base"}]
        most = max(variants, key=lambda one: (one.get("weight", 0), one["ref"] != "base"))
        return None if most["ref"] == "base" else str(most["ref"])

    def version(self, tenant: str, ref: str) -> dict[str, Any]:
        """What the gateway knows of a version (`tenant/name@version`): its row, with the manifest."""
        return self._json("GET", _of_version(tenant, ref))

    def aliases(self, tenant: str) -> list[str]:
        """The names of a tenant's aliases."""
        return [str(one["name"]) for one in self._json("GET", f"/tenants/{tenant}/aliases")["data"]]

    def retire(self, tenant: str, ref: str) -> None:
        """Have a version (`tenant/name@version`) take no requests any more. Retiring twice is fine."""
        self._json("POST", f"{_of_version(tenant, ref)}/retire")

    def lend_key(self, tenant: str, *, hours: float) -> tuple[str, str]:
        """A new key that may ask any version of the tenant, for so long; its id and its text."""
        ends = datetime.now(UTC) + timedelta(hours=hours)
        body = {"scopes": ["inference", "evaluate"], "expires_at": ends.isoformat()}
        made = self._json("POST", f"/tenants/{tenant}/keys", json=body)
        return str(made["id"]), str(made["key"])

    @contextmanager
    def lent_key(self, tenant: str, *, hours: float) -> Iterator[str]:
        """Such a key's text, for as long as the block lasts."""
        key_id, key = self.lend_key(tenant, hours=hours)
        try:
            yield key
        finally:
            self.revoke_key(tenant, key_id)

    def revoke_key(self, tenant: str, key_id: str) -> None:
        """End a key. Revoking twice is fine."""
        self._json("DELETE", f"/tenants/{tenant}/keys/{key_id}")

    def register(self, tenant: str, ref: str) -> Registered:
        """Tell the gateway of a version that is in its store already."""
        return _registered(self._json("POST", f"/tenants/{tenant}/adapters", json={"ref": ref}, timeout=_SLOW))

    def upload(self, tenant: str, name: str, archive: Path) -> Registered:
        """Send a plain tar of the three files; the gateway inspects, stores and registers it."""
        headers = {"content-type": "application/x-tar", "content-length": str(archive.stat().st_size)}
        path, params = f"/tenants/{tenant}/adapters", {"name": name}
        with archive.open("rb") as file:
            body = iter(lambda: file.read(_CHUNK), b"")
            return _registered(self._json("POST", path, params=params, content=body, headers=headers, timeout=_SLOW))

    def tell_lineage(self, tenant: str, ref: str, rows: Iterable[LineageRow]) -> None:
        """Say which rows made a registered version, in place of what was said before."""
        body = (f"{row.to_json()}\n".encode() for row in rows)
        headers = {"content-type": "application/jsonl"}
        self._json("POST", f"{_of_version(tenant, ref)}/lineage", content=body, headers=headers, timeout=_SLOW)

    def lineage(self, tenant: str, ref: str) -> Iterator[LineageRow]:
        """The rows that made a version, in their order."""
        return read_lineage(self._lines(f"{_of_version(tenant, ref)}/lineage", {}))

    def learnt_from(self, tenant: str, who: Mapping[str, str]) -> dict[str, Any]:
        """Which versions learnt from a user (`targeting_key` or `unit`): the unit, and rows with `ref` in `data`."""
        return self._json("GET", f"/tenants/{tenant}/lineage", params=dict(who))

    def erase(self, tenant: str, who: Mapping[str, str]) -> dict[str, Any]:
        """Erase what is kept of a user; how much it was (`erased`), and what learnt from it (`retrain`)."""
        return self._json("DELETE", f"/tenants/{tenant}/users", params=dict(who), timeout=_SLOW)

    def archive(self, tenant: str, ref: str, into: Path) -> None:
        """Fetch a version's three files, a plain tar, into the file `into`."""
        with self._stream(f"{_of_version(tenant, ref)}/archive", {}) as chunks, into.open("wb") as file:
            file.writelines(chunks)

    def render(self, messages: list[dict[str, Any]]) -> list[int]:
        """The token ids that the engine makes of a chat, up to where the answer begins."""
        body = {"messages": messages, "add_generation_prompt": True}
        return [int(token) for token in self._json("POST", "/engine/render", json=body)["ids"]]

    def _lines(self, path: str, params: dict[str, str]) -> Iterator[str]:
        rest = b""
        with self._stream(path, params) as chunks:
            # httpx's iter_lines also breaks at U+2028, which JSON allows inside a string.
            for chunk in chunks:
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line.decode() for line in lines)
        if rest:
            yield rest.decode()

    @contextmanager
    def _stream(self, path: str, params: dict[str, str]) -> Iterator[Iterator[bytes]]:
        try:
            with self._http.stream("GET", path, params=params, timeout=_SLOW) as reply:
                if reply.status_code != httpx.codes.OK:
                    reply.read()
                    raise _refused(reply)
                yield reply.iter_bytes()
        except httpx.HTTPError as error:
            raise _unreachable(error) from error

    def _json(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        try:
            reply = self._http.request(method, path, **request)
            if reply.is_success:
                found: dict[str, Any] = reply.json() if reply.content else {}
                return found
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        except ValueError as error:
            raise GatewayFailed("the gateway's answer is not JSON", "is GATEWAY_URL this project's gateway?") from error
        raise _refused(reply)


def _of_version(tenant: str, ref: str) -> str:
    name, _, number = ref.rpartition("/")[2].partition("@")
    return f"/tenants/{tenant}/adapters/{name}/{number}"


def require_servable(limits: EngineLimits, *, base_model: str, rank: int) -> None:
    """Refuse, before any training, a result that the engine could not serve. Raises `NotServable`."""
    if limits.max_rank == 0:
        remedy = "start the gateway with an engine of its own, or publish to a store without a gateway"
        raise NotServable("the gateway's engine serves the base model only", remedy)
    if limits.base_model != base_model:
        remedy = f"set base_model to {limits.base_model}"
        raise NotServable(f"the gateway serves {limits.base_model}, but base_model is {base_model}", remedy)
    if rank > limits.max_rank:
        remedy = f"set lora.rank to {limits.max_rank} or less, or raise the engine's max_lora_rank"
        raise NotServable(f"rank {rank}; the gateway's engine allows {limits.max_rank}", remedy)


def _registered(reply: dict[str, Any]) -> Registered:
    try:
        return Registered(str(reply["ref"]), str(reply["digest"]))
    except (KeyError, TypeError) as error:
        raise GatewayFailed("the gateway names no adapter version", "is it this project's gateway?") from error


def _unreachable(error: httpx.HTTPError) -> GatewayFailed:
    return GatewayFailed(
        f"the gateway cannot be reached ({type(error).__name__})", "is it running, and is GATEWAY_URL its address?"
    )


def _refused(reply: httpx.Response) -> GatewayFailed:
    try:
        reason = str(reply.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        reason = f"status {reply.status_code}"
    remedy = {
        401: "set GATEWAY_KEY to a valid key",
        403: "use a key with scope admin",
        404: "check publish.tenant and the alias or version that is named, and that the key may use them",
    }.get(reply.status_code, "correct it and run again")
    if reply.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
        remedy = "run the same command again later; it continues where it stopped"
    return GatewayFailed(f"the gateway refuses: {reason.rstrip('.')}", remedy)
