"""How long a swap takes, and what it costs the others: the gateway's promote beside vLLM's own `/v1/load_lora_adapter`.

Both are measured in the midst of the same streams of another tenant, one after the other, on the same engine: the
gateway's child with VLLM_ALLOW_RUNTIME_LORA_UPDATING switched on for the comparison. (On a CPU also vLLM's own way
then computes with our LoRA arithmetic; its own would make 24 streams on an adapter twenty times as slow.)
vLLM's own way does not verify, does not try the version before it serves it, and moves no alias.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from loadtests.demo.gateway import running
from loadtests.engine.crowd import Crowd, Gaps, crowd, tokens
from loadtests.engine.stage import BASE_MODEL, Stage, private_home

PROMPT = "The captain looked at the sea and said"
APART_SECONDS = 2.0
"""Between the two measurements in one crowd."""
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Measured:
    """One swap, in milliseconds: from the call to its answer, and to the first token of the new version.

    `phases` are the gateway's own timings; `gaps` are the other tenant's, from the call to its answer.
    """

    way: str
    streams: int
    answered: float
    first_token: float
    phases: dict[str, float]
    gaps: Gaps


class Swaps:
    """The two ways, on one stage."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._support: list[tuple[str, Path]] = []
        self._unserved: list[tuple[str, Path]] = []
        self._plain = 0

    async def promote(self, crowd: Crowd, streams: int) -> Measured:
        """Through the gateway: a version that is registered and not resident."""
        stage = self._stage
        ref, _ = self._support.pop()
        async with stage.client("acme") as client:
            await _answers(client, "/v1/models")
            start = time.perf_counter()
            path, body = "/tenants/acme/aliases/support/promote", {"ref": ref}
            swapped = await asyncio.to_thread(stage.gateway.call, "POST", path, body)
            answered = time.perf_counter()
            first = await _first_token(client, "support", served=ref)
        return _measured("promote", streams, start, answered, first, swapped["timings_ms"], crowd)

    async def load(self, crowd: Crowd, streams: int) -> Measured:
        """Past the gateway, as vLLM's documentation has it."""
        stage = self._stage
        _, path = self._unserved.pop()
        self._plain += 1
        name = f"plain-{self._plain}"
        async with stage.engine() as engine:
            await _answers(engine, "/v1/models")
            start = time.perf_counter()
            body = {"lora_name": name, "lora_path": str(path)}
            (await engine.post("/v1/load_lora_adapter", json=body)).raise_for_status()
            answered = time.perf_counter()
            first = await _first_token(engine, name, served=None)
            measured = _measured("load_lora_adapter", streams, start, answered, first, {}, crowd)
            (await engine.post("/tuneloop/adapters/evict", json={"name": name})).raise_for_status()
        return measured

    async def settle(self) -> None:
        """Make the next versions, and wait until the one before has been evicted, which would stall the next crowd."""
        self._support.append(await asyncio.to_thread(self._stage.version, "acme", "support"))
        self._unserved.append(await asyncio.to_thread(self._stage.version, "acme", "plain"))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if len(await asyncio.to_thread(self._stage.resident)) <= 2:
                break
            await asyncio.sleep(0.2)


async def _answers(client: httpx.AsyncClient, path: str) -> None:
    """Open the connection, so that it is not part of what is measured."""
    (await client.get(path)).raise_for_status()


async def _first_token(client: httpx.AsyncClient, model: str, *, served: str | None) -> float:
    """When the first token of the new version came; RuntimeError if another version answered."""
    came = []
    async for event in tokens(client, model, PROMPT, most=1):
        came.append(time.perf_counter())
        if event["served"] != served:
            raise RuntimeError(f"{event['served']} answered instead of {served}")
    return came[0]


def _measured(
    way: str, streams: int, start: float, answered: float, first: float, phases: dict[str, float], crowd: Crowd
) -> Measured:
    answered_ms, first_ms = (answered - start) * 1000, (first - start) * 1000
    return Measured(way, streams, answered_ms, first_ms, phases, crowd.gaps(start, answered))


def run(home: Path | None, model: Path, *, sizes: list[int], rounds: int, say: Callable[[str], None]) -> list[Measured]:
    """Measure both ways `rounds` times in crowds of each size."""
    settings = {"GATEWAY_ENGINE__ENV": '{"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}'}
    with private_home(home) as room:
        say("starting PostgreSQL, the gateway and vLLM (a minute)")
        with running(room, base_model=BASE_MODEL, model_path=model, say=lambda _: None, settings=settings) as gateway:
            stage = Stage(gateway, room, model)
            for tenant, name in (("acme", "support"), ("globex", "other")):
                stage.tenant(tenant)
                stage.alias(tenant, name, stage.version(tenant, name)[0])
            return asyncio.run(_rounds(stage, sizes, rounds, say))


async def _rounds(stage: Stage, sizes: list[int], rounds: int, say: Callable[[str], None]) -> list[Measured]:
    swaps, found = Swaps(stage), []
    for number in range(rounds):
        for size in sizes:
            await swaps.settle()
            ways = [swaps.promote, swaps.load] if number % 2 == 0 else [swaps.load, swaps.promote]
            async with stage.client("globex") as others, crowd(others, "other", size) as streams:
                for way in ways:
                    found.append(one := await way(streams, size))
                    say(f"round {number + 1} of {rounds}, {size} streams: {sentence(one)}")
                    await asyncio.sleep(APART_SECONDS)
    return found


def sentence(one: Measured) -> str:
    """One measurement for a person who waits."""
    phases = " · ".join(f"{name} {value:.0f}" for name, value in one.phases.items() if name != "total")
    return f"{one.way} {one.answered:.0f} ms ({phases or 'no phases'}), first token after {one.first_token:.0f} ms"


def table(found: list[Measured]) -> str:
    """Markdown: medians over the rounds, and the other tenant's gaps pooled."""
    lines = [
        "| streams of another tenant | way | answered, ms | first token, ms (worst) | in steps of the engine "
        "| prepare · commit · acknowledge | their gaps before: p50 / p99 | their gaps during: p50 / p99 / max |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for streams in sorted({one.streams for one in found}):
        for way in ("promote", "load_lora_adapter"):
            ours = [one for one in found if (one.streams, one.way) == (streams, way)]
            if ours:
                lines.append(_row(streams, way, ours))
    return "\n".join(lines)


def _row(streams: int, way: str, ours: list[Measured]) -> str:
    def median(pick: Callable[[Measured], float]) -> str:
        return f"{statistics.median(map(pick, ours)):.0f}"

    parts = [
        f"{statistics.median([one.phases[name] for one in ours]):.0f}" for name in ours[0].phases if name != "total"
    ]
    before = [gap for one in ours for gap in one.gaps.before]
    inside = [gap for one in ours for gap in one.gaps.inside]
    # A step takes as long as the machine lets it; how many of them a swap waits for is ours.
    steps = [one.first_token / statistics.median(one.gaps.before) for one in ours if one.gaps.before]
    cells = [
        str(streams),
        way,
        median(lambda one: one.answered),
        f"{median(lambda one: one.first_token)} ({max(one.first_token for one in ours):.0f})",
        f"{statistics.median(steps):.1f}" if steps else "-",
        " · ".join(parts) or "-",
        f"{percentile(before, 50)} / {percentile(before, 99)}",
        f"{percentile(inside, 50)} / {percentile(inside, 99)} / {percentile(inside, 100)}",
    ]
    return "| " + " | ".join(cells) + " |"


def percentile(values: list[float], percent: float) -> str:
    """The value that so many per cent do not exceed, as text; a dash when there is none."""
    if not values:
        return "-"
    ordered = sorted(values)
    return f"{ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]:.0f}"
