"""A real HTTP server that behaves like vLLM 0.32 with our plugin, without torch: for tests, the demo and load tests.

    python -m gateway.engine.fake --uds /run/engine.sock
    python -m gateway.engine.fake --port 0 --slots 32 --ttft 0.05 --itl 0.01

It prints its URL when it listens. Answers are deterministic and name the weights they come from (`fake_answers.py`);
faults are switched at run time by `POST /fake/faults`, and `GET /fake/state` shows what it was sent (`fake_routes.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields

import uvloop

from gateway.engine.fake_engine import FakeEngine, Options, kill
from gateway.engine.fake_http import Server, Wire
from gateway.engine.fake_routes import Routes


@dataclass(frozen=True, slots=True)
class Running:
    """A fake engine that listens at `url`."""

    url: str
    engine: FakeEngine
    server: Server


@asynccontextmanager
async def running(
    options: Options | None = None,
    *,
    uds: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    die: Callable[[], None] | None = None,
) -> AsyncIterator[Running]:
    """A fake engine in this process for the length of an `async with`. Its death then is the end of its server only,
    with every connection cut, unless `die` says otherwise."""
    wire = Wire()
    failure: Exception | None = None  # of the caller's block; the group would wrap it
    async with asyncio.TaskGroup() as group:
        engine = FakeEngine(options or Options(), wire, die=die or (lambda: server.stop()))
        routes = Routes(engine, connections=lambda: len(server.connections))
        server = Server(routes.answer, wire, group)
        url = await server.listen(uds=uds, host=host, port=port)
        sweep = group.create_task(server.sweep())
        try:
            yield Running(url, engine, server)
        except Exception as error:
            failure = error
        finally:
            sweep.cancel()
            server.stop()
    if failure is not None:
        raise failure


async def serve(options: Options, *, uds: str | None, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(options, uds=uds, host=host, port=port, die=kill) as fake:
        sys.stdout.write(f"{fake.url}\n")
        sys.stdout.flush()
        await stop.wait()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m gateway.engine.fake", description=(__doc__ or "").splitlines()[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--uds", help="listen on this Unix socket")
    where.add_argument("--port", type=int, help="listen on this TCP port; 0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1")
    for option in fields(Options):
        default = option.default
        parser.add_argument(f"--{option.name.replace('_', '-')}", type=type(default), default=default)
    told = vars(parser.parse_args(arguments))
    options = Options(**{option.name: told[option.name] for option in fields(Options)})
    uvloop.run(serve(options, uds=told["uds"], host=told["host"], port=told["port"] or 0))


if __name__ == "__main__":
    main()
