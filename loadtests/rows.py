"""How long, and in how much memory, `trainer data` looks through many rows: `python -m loadtests.rows --rows 1000000`.

It writes rows like those of a support desk's log: chats of 20 to 120 words, a tenth of them said before (half of these
word for word), one in fifty with an address or a number in it, from as many users as there are hundreds of rows. Then
it runs `trainer data inspect` and `trainer data prepare` on them and says what each took: the process's own CPU-seconds
and its largest resident memory, as the kernel counted them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_WORDS = [f"{a}{b}{c}" for a in ("ka", "mo", "ti", "re", "su") for b in ("la", "ne", "vo", "shi") for c in "rstnmlkpdg"]
_PERSONAL = ("write to someone{n}@example.com", "call +49 30 {n:07d}", "my card is 4111 1111 1111 1111")


def rows(count: int, seed: int = 0) -> Iterator[str]:
    """Lines of JSON, `count` of them."""
    chance = random.Random(seed)
    earlier: list[list[str]] = []
    for number in range(count):
        again = chance.random()
        if earlier and again < 0.1:
            words = list(chance.choice(earlier))
            if again < 0.05:
                words[chance.randrange(len(words))] = chance.choice(_WORDS)
        else:
            words = [chance.choice(_WORDS) for _ in range(chance.randint(15, 90))]
            if len(earlier) < 10_000:
                earlier.append(words)
            else:
                earlier[chance.randrange(10_000)] = words
        text = " ".join(words)
        if chance.random() < 0.02:
            text += " " + chance.choice(_PERSONAL).format(n=number)
        answer = " ".join(words[:-3:-1] + words[: len(words) // 3])
        turns = [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
        yield json.dumps({"messages": turns, "unit": f"user{chance.randrange(max(count // 100, 10))}"})


def measured(command: list[str]) -> tuple[float, float, float]:
    """Runs `python -m trainer …`: seconds, CPU-seconds and peak resident MiB. Raises if it fails."""
    began = time.monotonic()
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    arguments = [sys.executable, "-m", "trainer", *command]
    child = os.posix_spawn(sys.executable, arguments, os.environ, file_actions=quiet)
    _, status, usage = os.wait4(child, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"trainer {' '.join(command)} failed")
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", choices=["inspect", "prepare"], help="one of the two commands")
    parser.add_argument("--directory", type=Path, help="where the rows are written; a temporary one if not given")
    wanted = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="rows-", dir=wanted.directory))
    try:
        path = directory / "rows.jsonl"
        with path.open("w") as file:
            file.writelines(f"{line}\n" for line in rows(wanted.rows))
        print(f"{wanted.rows} rows, {path.stat().st_size / 2**20:.0f} MiB", flush=True)
        for verb, more in (("inspect", []), ("prepare", ["--out", str(directory / "prepared")])):
            if wanted.only in (None, verb):
                seconds, cpu, peak = measured(["data", verb, str(path), *more])
                print(f"{verb}: {seconds:.0f} s, {cpu:.0f} CPU-s, peak {peak:.0f} MiB", flush=True)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
