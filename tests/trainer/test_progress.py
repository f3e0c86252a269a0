"""What a person sees of a training: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import io

from rich.console import Console

from trainer.progress import PlainProgress, TerminalProgress, to


def test_what_is_no_terminal_gets_lines_every_few_seconds_and_the_last_one():
    stream = io.StringIO()
    progress = PlainProgress(stream, every_seconds=1000)
    progress.begin(10, done=4)
    for step in range(5, 11):
        progress.step(step, loss=1 / step, tokens=100 * step)
    progress.end()
    first, last = stream.getvalue().splitlines()
    assert first.startswith("step 5/10 · loss 0.2000 · ") and first.endswith(" s left")
    assert last.startswith("step 10/10 · loss 0.1000 · ") and "tokens/s · 0 s left" in last
    assert isinstance(to(stream), PlainProgress)


def test_a_terminal_gets_a_bar_with_loss_and_speed():
    stream = io.StringIO()
    progress = TerminalProgress(Console(file=stream, force_terminal=True, width=100))
    progress.say("[loading] a model")
    progress.begin(2, done=0)
    progress.step(1, loss=0.5, tokens=10)
    progress.step(2, loss=0.25, tokens=20)
    progress.end()
    assert "[loading] a model" in stream.getvalue()
    assert "2/2" in stream.getvalue() and "loss 0.2500 · " in stream.getvalue()
