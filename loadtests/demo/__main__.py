"""`make demo` and `make serve`.

python -m loadtests.demo            the whole loop, then a table; exit status 1 if a figure is not what it must be
python -m loadtests.demo serve      a gateway with the demo's tenant, left up until Ctrl-C
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from loadtests.demo import loop, report
from loadtests.demo.gateway import DemoFailed, running
from loadtests.demo.progress import console, step
from loadtests.demo.triage import SYSTEM

HOME = Path(".tuneloop/demo")
MODEL = Path(".tuneloop/models/SmolLM2-135M-Instruct")
PORT = 8080


def demo() -> int:
    """Run the loop and print the report; returns the exit status."""
    (HOME / "runs").mkdir(parents=True, exist_ok=True)
    story = loop.run(HOME, MODEL)
    report.show(console, story)
    failures = report.failures(story)
    for failure in failures:
        console.print(f"FAILED: {failure}", style="bold red", markup=False)
    if not failures:
        console.print("No request failed, and every stream ended on the version it began with.", style="bold green")
    console.print(CONSOLE.format(port=PORT, key=HOME / "gateway" / "admin.key"), markup=False)
    return 1 if failures else 0


def serve() -> int:
    """Leave a gateway up with the demo's tenant, and print two ways to talk to it."""
    with step("PostgreSQL, the gateway, and a real vLLM child") as now:
        stack = running(HOME / "gateway", base_model=loop.BASE_MODEL, model_path=MODEL, port=PORT, say=now.say)
        gateway = stack.__enter__()
    try:
        key = loop.prepare(gateway)[loop.TENANT]
        admin = HOME / "gateway" / "admin.key"
        said = SNIPPETS.format(url=gateway.url, key=key, model=loop.ALIAS, system=SYSTEM, admin=admin)
        console.print(said, markup=False)
        threading.Event().wait()
    except KeyboardInterrupt:
        console.print("stopping")
    finally:
        stack.__exit__(None, None, None)
    return 0


CONSOLE = """
The finished experiment is in the console, with its interval over time, its verdict and who promoted. To look at it:

  make serve                             # the same database; a minute, for the engine
  http://127.0.0.1:{port}/console         # sign in with the key in {key}
"""
SNIPPETS = """
The gateway is up at {url} (Ctrl-C stops it). Ask it with curl:

  curl -s {url}/v1/chat/completions -H 'authorization: Bearer {key}' -H 'content-type: application/json' \\
    -d '{{"model": "{model}", "max_tokens": 28, "messages": [
          {{"role": "system", "content": "{system}"}},
          {{"role": "user", "content": "I was charged twice this month."}}]}}'

or with Python:

  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key="{key}")
  answer = client.chat.completions.create(model="{model}", max_tokens=28, messages=[
      {{"role": "system", "content": "{system}"}},
      {{"role": "user", "content": "I was charged twice this month."}}])
  print(answer.choices[0].message.content)

The console is at {url}/console: sign in with the key in {admin}.
"""

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end as on Ctrl-C: the gateway must not stay behind
    try:
        sys.exit(serve() if sys.argv[1:] == ["serve"] else demo())
    except DemoFailed as failed:
        console.print(str(failed), style="bold red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
