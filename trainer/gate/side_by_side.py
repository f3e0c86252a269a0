"""Any versions on the rows of a file: `trainer eval`'s work. The first version is what the others are compared with."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters.ref import AdapterRef
from trainer import data
from trainer.asking import Asker
from trainer.errors import InvalidConfig, InvalidData
from trainer.gate import policy
from trainer.gate.evaluation import Kept, Say, Version
from trainer.gate.measuring import Measured, labels_of, measure
from trainer.gate.policy import Compared
from trainer.gate.questions import UNKNOWN_CONTEXT, asked, chosen
from trainer.gateway_client import Gateway
from trainer.settings.access import GatewayAccess
from trainer.settings.gate import GateSettings

_HOURS = 6.0


def measured(
    refs: Sequence[str], path: Path, access: GatewayAccess, model_path: Path | None, wanted: GateSettings, say: Say
) -> Measured:
    """All versions on at most `wanted.rows` rows of the file, with a key of their own. Raises `TrainerError`s."""
    tenants = {AdapterRef.parse(ref).tenant for ref in refs if ref != "base"}
    if len(tenants) != 1 or len(set(refs)) != len(refs):
        raise InvalidConfig("the versions are not of one tenant, or one is named twice", "name tenant/name@version")
    examples = chosen(list(data.read_file(path)), wanted.rows)
    if not examples:
        raise InvalidData(f"{path} holds no rows", "name a file that does")
    labels = labels_of(wanted.labels, examples)
    tenant = tenants.pop()
    with Gateway(access) as gateway, tempfile.TemporaryDirectory() as room:
        limits = gateway.limits()
        context = limits.context or UNKNOWN_CONTEXT
        tokenizer = None if model_path is None else _tokenizer(model_path)
        questions = asked(tokenizer, examples, answer_tokens=wanted.max_tokens, context=context, labels=labels)
        versions = [Version(ref, ref, ref) for ref in refs]

        async def hear(key: str) -> Measured:
            with Kept(Path(room) / "asked.jsonl") as kept:
                async with Asker(str(access.url), key, at_once=wanted.at_once) as asker:
                    return await measure(versions, questions, asker, kept, say, labels=labels)

        with gateway.lent_key(tenant, hours=_HOURS) as key:
            return asyncio.run(hear(key))


def _tokenizer(model_path: Path) -> Any:
    from trainer.tokens import tokenizer_at  # imports torch

    return tokenizer_at(model_path)


def figures(answers: Measured, refs: Sequence[str], wanted: GateSettings) -> dict[str, Any]:
    """Every figure of every version, and its difference to the first's, as plain values."""
    lines = []
    for one in answers.measures:
        compared = {
            ref: answers.compared(one, ref, refs[0], confidence=wanted.policy.confidence, seed=wanted.seed)
            for ref in refs[1:]
        }
        values = {ref: one.value(ref) for ref in refs}
        lines.append({"name": one.name, "better": one.better, "values": values, "differences": _plain(compared)})
    counted = {"rows": len(answers.rows), "overlong": answers.overlong, "lost": dict(answers.failures)}
    return {"against": refs[0], **counted, "figures": lines}


def _plain(compared: dict[str, Compared]) -> dict[str, dict[str, float]]:
    return {
        ref: {"value": one.difference.value, "low": one.difference.low, "high": one.difference.high}
        for ref, one in compared.items()
        if abs(one.difference.low) != float("inf")
    }


def table(found: dict[str, Any], refs: Sequence[str]) -> str:
    """One figure a line; a version after the first has the interval of its difference beside it."""
    rows = [["figure", *refs]]
    for line in found["figures"]:
        cells = [policy.word(line["name"])]
        for ref in refs:
            between = line["differences"].get(ref)
            shown = "" if between is None else f" ({policy.signed(between['low'])} to {policy.signed(between['high'])})"
            cells.append(policy.number(line["values"][ref]) + shown)
        rows.append(cells)
    widths = [max(len(row[n]) for row in rows) for n in range(len(refs) + 1)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    counted = f"{found['rows']} rows, {found['overlong']} too long, {sum(found['lost'].values())} answers lost"
    return "\n".join([*table, f"{counted}; in brackets the difference to {refs[0]}, each end with 95 % confidence"])
