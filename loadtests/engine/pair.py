"""What the gateway adds to a real engine: `vllm bench serve` straight to vLLM and through the gateway, at once.

Both ways end at the same vLLM process on a TCP port (`--engine url`), so that only the gateway differs; the same number
of prompts of the same lengths, never the same prompt twice. Straight names the adapter, through names its alias. At
once, each with half of the load: their requests sit in the same steps of the engine, so whatever else the machine does
slows both alike, and a difference is the gateway's. Throughput is of a closed loop, as `--max-concurrency` makes it;
the time to the first token is of requests that come at random, because a loop's requests all come when a step ends, and
whoever is a millisecond later waits for a whole one. Even so it says more of the engine's steps than of the gateway:
what that adds is seen best alone (turns.py). Apart, one way after the other, shows what the gateway's share of the
processor costs too, on a machine that is quiet enough.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import httpx
import numpy as np

from gateway.engine.command import vllm_command
from gateway.settings import EngineSettings, Settings
from loadtests.demo.gateway import running
from loadtests.engine.stage import BASE_MODEL, SECONDS, Stage, private_home
from loadtests.engine.turns import first_tokens

WAYS = ("straight", "through")
ENGINE_ARGS = ["--max-model-len", "1024", "--max-num-seqs", "32"]


@dataclass(frozen=True)
class Load:
    """What one run asks for: so many requests of so many tokens in and out, so many at once, or so many a second."""

    requests: int
    at_once: int
    tokens_in: int
    tokens_out: int
    rate: float | None = None

    @property
    def half(self) -> Load:
        return replace(self, requests=self.requests // 2, at_once=self.at_once // 2, rate=self.rate and self.rate / 2)


Ask = Callable[[str, int, Load], dict[str, float]]
"""Way, number of adapters, load → the figures of one run."""


@dataclass(frozen=True)
class Run:
    """One run's figures, as `vllm bench serve` names them."""

    way: str
    adapters: int
    round: int
    kind: str
    figures: dict[str, Any]


def run(
    home: Path | None,
    model: Path,
    loads: dict[str, Load],
    *,
    adapters: list[int],
    rounds: int,
    apart: bool,
    alone: int,
    say: Callable[[str], None],
) -> list[Run]:
    """`rounds` pairs for each number of adapters, each with `alone` pairs of single requests; apart, who goes first
    alternates."""
    with private_home(home) as room, _vllm(room, model) as (engine, log):
        say(f"starting vLLM (its log: {log}), PostgreSQL and the gateway (a minute)")
        flags = ("--engine", "url", "--engine-url", engine)
        with running(room, base_model=BASE_MODEL, model_path=model, say=lambda _: None, engine=flags) as gateway:
            stage = Stage(gateway, room, model)
            stage.tenant("acme")
            refs = {f"a{number}": stage.version("acme", f"a{number}")[0] for number in range(max(adapters))}
            for alias, ref in refs.items():
                stage.alias("acme", alias, ref)
            targets = {"straight": (engine, list(refs.values())), "through": (gateway.url, list(refs))}
            with _bench(room, stage.keys["acme"]) as straight, _bench(room, stage.keys["acme"]) as through:
                send = {"straight": straight, "through": through}
                seeds = itertools.count(1)

                def ask(way: str, count: int, asked: Load) -> dict[str, float]:
                    url, names = targets[way]
                    return send[way](_arguments(url, names[:count], model, asked, seed=next(seeds)))

                found = list(_rounds(ask, loads, adapters, rounds, apart, say))
            for count in adapters:
                say(f"one request at a time, {count} adapters: {rounds * alone} pairs")
                found += asyncio.run(_alone(stage, targets, count, pairs=rounds * alone))
            return found


async def _alone(stage: Stage, targets: dict[str, tuple[str, list[str]]], count: int, *, pairs: int) -> list[Run]:
    headers = {"authorization": f"Bearer {stage.keys['acme']}"}
    async with AsyncExitStack() as stack:
        clients = {
            way: await stack.enter_async_context(httpx.AsyncClient(base_url=url, headers=headers, timeout=SECONDS))
            for way, (url, _) in targets.items()
        }
        names = {way: models[:count] for way, (_, models) in targets.items()}
        took = await first_tokens(clients, names, pairs=pairs, seed=count)
    return [Run(way, count, 0, "alone", {"ttfts": seconds}) for way, seconds in took.items()]


def _rounds(
    ask: Ask, loads: dict[str, Load], adapters: list[int], rounds: int, apart: bool, say: Callable[[str], None]
) -> Iterator[Run]:
    for way in WAYS:  # the first requests after a start are slow, whoever sends them
        ask(way, max(adapters), loads["closed"])
    with ThreadPoolExecutor(len(WAYS)) as pool:
        for number, count, kind in itertools.product(range(rounds), adapters, loads):
            ways = WAYS if number % 2 == 0 else WAYS[::-1]
            if apart:
                told = [ask(way, count, loads[kind]) for way in ways]
            else:
                told = list(pool.map(ask, ways, [count] * 2, [loads[kind].half] * 2))
            for way, figures in sorted(zip(ways, told, strict=True), key=lambda one: one[0]):
                if figures["failed"]:
                    raise RuntimeError(f"{figures['failed']} requests failed {way}")
                speed = f"{figures['output_throughput']:.1f} tok/s, TTFT {figures['median_ttft_ms']:.0f} ms"
                say(f"round {number + 1} of {rounds}, {kind} loop, {count} adapters, {way}: {speed}")
                yield Run(way, count, number, kind, figures)


def _arguments(url: str, names: list[str], model: Path, load: Load, *, seed: int) -> list[str]:
    return [
        *("--backend", "openai", "--base-url", url, "--endpoint", "/v1/completions", "--disable-tqdm"),
        *("--model", names[0], "--tokenizer", str(model), "--lora-modules", *names, "--lora-assignment", "round-robin"),
        *("--dataset-name", "random", "--random-input-len", str(load.tokens_in)),
        *("--random-output-len", str(load.tokens_out), "--num-prompts", str(load.requests), "--ignore-eos"),
        *(("--request-rate", str(load.rate)) if load.rate else ("--max-concurrency", str(load.at_once))),
        *("--seed", str(seed), "--temperature", "0"),
        *("--ready-check-timeout-sec", "0", "--save-detailed", "--percentile-metrics", "ttft,tpot,itl"),
    ]


@contextmanager
def _vllm(room: Path, model: Path) -> Iterator[tuple[str, Path]]:
    """vLLM with our plugin as the gateway starts it, but on a TCP port: its URL, and its log."""
    settings = Settings(home=room, model_path=model, base_model=BASE_MODEL, engine=EngineSettings(args=ENGINE_ARGS))
    command, env = vllm_command(settings, room / "unused")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    at = command.index("--uds")
    command[at : at + 2] = ["--host", "127.0.0.1", "--port", port]
    room.mkdir(parents=True, exist_ok=True)
    log = room / "vllm.log"
    with log.open("ab") as out:
        process = subprocess.Popen(command, env=os.environ | env, stdout=out, stderr=out, start_new_session=True)
    try:
        yield f"http://127.0.0.1:{port}", log
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _bench(room: Path, key: str) -> Iterator[Callable[[list[str]], dict[str, float]]]:
    """A process that runs `vllm bench serve` as often as it is asked to; vLLM itself asks for no key."""
    log = (room / "bench.log").open("ab")
    process = subprocess.Popen(
        [sys.executable, "-m", "loadtests.engine.bench"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=os.environ | {"OPENAI_API_KEY": key, "HF_HUB_OFFLINE": "1"},
    )
    asked, told = process.stdin, process.stdout
    assert asked is not None
    assert told is not None

    def ask(arguments: list[str]) -> dict[str, float]:
        return _answer(asked, told, arguments, log.name)

    try:
        yield ask
    finally:
        log.close()
        process.kill()
        process.wait()


def _answer(asked: IO[str], told: IO[str], arguments: list[str], log: str) -> dict[str, float]:
    asked.write(json.dumps(arguments) + "\n")
    asked.flush()
    line = told.readline()
    if not line:
        raise RuntimeError(f"vllm bench serve ended: see {log}")
    figures: dict[str, Any] = json.loads(line)
    return figures


def table(found: list[Run]) -> str:
    """Markdown: medians over the rounds, first tokens of all of them, and what the pairs differ by in the median, for
    first tokens with its 95 % interval."""
    columns = ("output tokens/s", "median TPOT, ms", "p99 ITL, ms", "TTFT at random, ms", "TTFT alone, ms")
    lines = ["| adapters | way | " + " | ".join(columns) + " |", "|---" * (2 + len(columns)) + "|"]
    names = ("output_throughput", "median_tpot_ms", "p99_itl_ms")
    for adapters in sorted({one.adapters for one in found}):
        runs = {way: _figures(found, adapters, way, "closed") for way in WAYS}
        first = {
            kind: {way: _first_tokens(_figures(found, adapters, way, kind)) for way in WAYS}
            for kind in ("open", "alone")
        }
        for way in WAYS:
            cells = [f"{statistics.median([figures[name] for figures in runs[way]]):.1f}" for name in names]
            cells += [f"{np.median(one[way]):.1f}, p90 {np.quantile(one[way], 0.9):.1f}" for one in first.values()]
            lines.append(f"| {adapters} | {way} | " + " | ".join(cells) + " |")
        pairs = list(zip(runs["straight"], runs["through"], strict=True))
        ratio = statistics.median([b["output_throughput"] / a["output_throughput"] for a, b in pairs])
        apart = [statistics.median([b[name] - a[name] for a, b in pairs]) for name in names[1:]]
        cells = [f"{ratio:.3f} of it", *(f"{value:+.1f}" for value in apart)]
        cells += [_later(one, paired=kind == "alone") for kind, one in first.items()]
        lines.append(f"| {adapters} | the {len(pairs)} pairs | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _later(first: dict[str, list[float]], *, paired: bool) -> str:
    """By how much the median is later through the gateway, with its interval by bootstrap, and of how many requests.
    Of pairs it is the median of their differences."""
    random = np.random.default_rng(0)
    straight, through = (np.array(first[way]) for way in WAYS)
    if paired:
        apart = through - straight
        later, drawn = np.median(apart), np.median(random.choice(apart, (4000, len(apart))), axis=1)
    else:
        later = np.median(through) - np.median(straight)
        ways = [np.median(random.choice(one, (4000, len(one))), axis=1) for one in (straight, through)]
        drawn = ways[1] - ways[0]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{later:+.1f} ({low:+.1f} to {high:+.1f}) of {len(through)}"


def _figures(found: list[Run], adapters: int, way: str, kind: str) -> list[dict[str, Any]]:
    return [one.figures for one in found if (one.adapters, one.way, one.kind) == (adapters, way, kind)]


def _first_tokens(runs: list[dict[str, Any]]) -> list[float]:
    return [seconds * 1000 for figures in runs for seconds in figures["ttfts"]]
