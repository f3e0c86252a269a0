"""First tokens of one request at a time, straight to vLLM and through the gateway in turns.

On an idle engine a first token comes when it is computed, and waits for no step of others': what is left between two
neighbours is the gateway. In turns, because a machine's speed drifts by more than that within seconds.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence

import httpx

from loadtests.engine.crowd import tokens

WARM_UP = 3
"""Pairs that are not counted: the first requests on new connections."""


async def first_tokens(
    clients: Mapping[str, httpx.AsyncClient], names: Mapping[str, Sequence[str]], *, pairs: int, seed: int
) -> dict[str, list[float]]:
    """Seconds to the first token of each of `pairs` neighbours, by way. `names`: the models, asked for in order.

    Before a pair its adapter is asked once more, uncounted, in one of the ways: the engine takes longer for an adapter
    that was not in the step before.
    """
    took: dict[str, list[float]] = {way: [] for way in clients}
    dice, models = random.Random(seed), min(map(len, names.values()))
    for number in range(WARM_UP + pairs):
        ways = list(clients) if number // models % 2 else list(clients)[::-1]  # each model both ways round
        for counted, way in ((False, ways[1]), (True, ways[0]), (True, ways[1])):
            words = f"{dice.getrandbits(16):04x} {dice.getrandbits(16):04x}"  # short, and never the same
            seconds = await _first(clients[way], names[way][number % models], words)
            if counted:
                took[way].append(seconds)
    return {way: seconds[WARM_UP:] for way, seconds in took.items()}


async def _first(client: httpx.AsyncClient, model: str, prompt: str) -> float:
    began = time.perf_counter()
    stream = tokens(client, model, prompt, most=1)
    await anext(stream)
    seconds = time.perf_counter() - began
    async for _ in stream:
        pass
    return seconds
