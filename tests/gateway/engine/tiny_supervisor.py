"""A supervisor to be killed: runs the tiny engine on SOCKET with its log at LOG, and prints its number when ready."""

import asyncio
import sys
from pathlib import Path

from gateway.engine.process import EngineEvent, EngineProcess

TINY = Path(__file__).with_name("tiny_engine.py")


async def main() -> None:
    path = Path(sys.argv[1])

    async def answers() -> None:
        _, writer = await asyncio.open_unix_connection(path)
        writer.close()

    def tell(event: EngineEvent) -> None:
        if event.kind == "ready":
            print(engine.pid, flush=True)

    engine = EngineProcess(
        [sys.executable, str(TINY), str(path)],
        env={},
        socket=path,
        log=Path(sys.argv[2]),
        start_seconds=20,
        ready=answers,
        lives=answers,
        silence_seconds=60,
        tell=tell,
    )
    await engine.run()


asyncio.run(main())
