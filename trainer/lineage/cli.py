"""`trainer lineage`: the rows of an adapter or a run, the adapters of a user, and a user's erasure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from adapters.errors import InvalidRef
from adapters.lineage import LineageRow
from adapters.ref import AdapterRef
from trainer import config
from trainer.errors import InvalidConfig
from trainer.gateway_client import Gateway
from trainer.lineage.traces import Traces, erase, rows_of, traces

_Url = Annotated[str | None, typer.Option("--gateway", help="the gateway's address; its key is GATEWAY_KEY")]
_Runs = Annotated[Path | None, typer.Option(help="a directory of run directories to look through, too")]


def lineage(  # long because: the flags are the interface, one line each
    of: Annotated[str | None, typer.Argument(help="a version (tenant/name@version), or a run directory")] = None,
    gateway: _Url = None,
    tenant: Annotated[str | None, typer.Option(help="whose user it is")] = None,
    user: Annotated[str | None, typer.Option(help="a user, by the targeting key that clients send")] = None,
    unit: Annotated[str | None, typer.Option(help="a user, by its hash as rows hold it")] = None,
    runs: _Runs = None,
    erasing: Annotated[bool, typer.Option("--erase", help="erase the user's prompts, answers, feedback, rows")] = False,
    sure: Annotated[bool, typer.Option("--yes", help="really")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="the result as a JSON object")] = False,
) -> None:
    """Say which rows made an adapter, or which adapters a user's rows went into; erase a user."""
    if of is not None and user is None and unit is None and not erasing:
        for row in _rows(of, gateway):
            _print(row.to_json())
        return
    who = _who(of, user, unit)
    if tenant is None and runs is None:
        raise InvalidConfig("nothing says where to look", "name --tenant (at its gateway), --runs, or both")
    if erasing and not sure:
        _look(who, tenant, gateway, runs, as_json=as_json)
        raise InvalidConfig("nothing was erased", "add --yes to erase the above for good")
    if erasing:
        _erase(who, tenant, gateway, runs, as_json=as_json)
    else:
        _look(who, tenant, gateway, runs, as_json=as_json)


def _rows(of: str, url: str | None) -> Iterable[LineageRow]:
    if Path(of).is_dir():
        yield from rows_of(Path(of))
        return
    try:
        ref = AdapterRef.parse(of)
    except InvalidRef as error:
        raise InvalidConfig(
            f"{of} is neither a run directory nor a version", "write a version as acme/support@3"
        ) from error
    with Gateway(config.access(url)) as gateway:
        yield from gateway.lineage(ref.tenant, of)


def _who(of: str | None, user: str | None, unit: str | None) -> dict[str, str]:
    who = {key: value for key, value in (("targeting_key", user), ("unit", unit)) if value is not None}
    if of is not None or len(who) != 1:
        raise InvalidConfig(
            "it is not clear whose lineage this is", "name an adapter, a run directory, --user or --unit"
        )
    return who


def _look(who: dict[str, str], tenant: str | None, url: str | None, runs: Path | None, *, as_json: bool) -> None:
    known = _ask(who, tenant, url) if tenant is not None else {"unit": who.get("unit"), "data": []}
    found = _local(runs, known["unit"])
    if as_json:
        _print(json.dumps({"unit": known["unit"], "adapters": known["data"], "runs": _plain(found)}))
        return
    _print(
        f"unit {known['unit']}: rows in {len(known['data'])} adapters" + ("" if tenant else " (no tenant was named)")
    )
    for one in known["data"]:
        state = "retired" if one["retired"] else f"serving {', '.join(one['serving'])}" if one["serving"] else "idle"
        rows = f"{one['rows']} rows" if one["rows"] else "goes on from one that has such rows"
        _print(f"{one['ref']}: {rows}, {state}")
    for trace in found:
        _print(str(trace))


def _erase(who: dict[str, str], tenant: str | None, url: str | None, runs: Path | None, *, as_json: bool) -> None:
    done: dict[str, Any] = {"unit": who.get("unit"), "erased": {}, "retrain": []}
    if tenant is not None:
        with Gateway(config.access(url)) as gateway:
            done |= gateway.erase(tenant, who)
    found = _local(runs, done["unit"])
    for trace in found:
        erase(trace, str(done["unit"]))
    if as_json:
        keys = ("unit", "erased", "retrain")
        _print(json.dumps({**{key: done[key] for key in keys}, "runs": _plain(found)}))
        return
    gone = ", ".join(f"{count} {what}" for what, count in done["erased"].items())
    _print(f"erased unit {done['unit']}" + (f" at the gateway: {gone}" if gone else ""))
    for trace in found:
        _print(f"erased {trace}; this run cannot be continued")
    nothing = "no published version" if tenant is not None else "what was published from these runs"
    _print(f"to train again: {', '.join(done['retrain']) or nothing}")


def _ask(who: dict[str, str], tenant: str, url: str | None) -> dict[str, Any]:
    with Gateway(config.access(url)) as gateway:
        return gateway.learnt_from(tenant, who)


def _local(runs: Path | None, unit: str | None) -> list[Traces]:
    if runs is None:
        return []
    if unit is None:
        raise InvalidConfig("only a gateway knows the hash of a targeting key", "name --tenant, or give --unit")
    return traces(runs, unit)


def _plain(found: Iterable[Traces]) -> list[dict[str, Any]]:
    return [{"run_dir": str(trace.run_dir), "rows": trace.rows} for trace in found]


def _print(line: str) -> None:
    print(line)  # noqa: T201  # the result
