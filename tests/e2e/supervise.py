"""The supervisor of the tests' engine, as a process that a test may kill.

Settings come from the environment; events go out as JSON lines; it ends when its standard input does.

python -m tests.e2e.supervise SOCKET LOG
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from gateway.engine.client import HttpEngine
from gateway.engine.command import vllm_command
from gateway.engine.process import EngineEvent, EngineProcess
from gateway.settings import load


async def main(socket: Path, log: Path) -> None:
    settings = load()
    command, env = vllm_command(settings, socket)
    client = HttpEngine(f"unix:{socket}", base_model=settings.base_model, timeouts=settings.timeouts)

    def tell(event: EngineEvent) -> None:
        print(
            json.dumps({"at": time.time(), "kind": event.kind, "sentence": event.sentence, "pid": engine.pid}),
            flush=True,
        )

    engine = EngineProcess(
        command,
        env=env,
        socket=socket,
        log=log,
        start_seconds=settings.engine.start_seconds,
        ready=lambda: client.probe(settings.base_model),
        lives=lambda: client.probe(settings.base_model),
        silence_seconds=settings.engine.silence_seconds,
        tell=tell,
    )
    async with asyncio.TaskGroup() as group:
        running = group.create_task(engine.run())
        await asyncio.to_thread(sys.stdin.read)  # the test closes it, or dies
        await engine.stop()
        running.cancel()
        await client.aclose()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
