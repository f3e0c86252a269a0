"""A share of a supervised round is the base model's own answers, asked for once."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.trainer import tiny
from trainer import config, replay
from trainer.errors import InvalidData
from trainer.progress import PlainProgress, Silent


def settings(directory: Path, **changed: Any) -> config.RunSettings:
    raw = {"base_model": tiny.NAME, "run_dir": str(directory / "run"), "data.train": "rows.jsonl", "replay.share": 0.2}
    return config.load(None, [*raw.items(), *((k.replace("__", "."), v) for k, v in changed.items())], environ={})


class Base:
    """Answers every prompt with its length, but cuts those about nothing it knows; counts what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, chats: Sequence[replay.Chat]) -> list[str | None]:
        texts = [chat[-1]["content"] for chat in chats]
        self.asked += texts
        return [None if len(text) % 5 == 0 else f"{len(text)} letters" for text in texts]


def test_the_share_is_of_all_trained_rows(tmp_path: Path):
    rows = replay.rows(settings(tmp_path), 80, Silent(), ask=Base())
    assert len(rows) == 20 and {row.kind for row in rows} == {"seed"} and {row.adapter for row in rows} == {"base"}
    assert all(row.completion == f"{len(row.messages[0]['content'])} letters" for row in rows)


@contextmanager
def gateway_that_first_answers(*statuses: int) -> Iterator[str]:
    left = list(statuses)

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            if not self.path.startswith("/v1/"):
                return self.told(201, {"id": "key-1", "key": "tl-lent"})
            choice = {"message": {"content": "so it is"}, "finish_reason": "stop"}
            return self.told(left.pop() if left else 200, {"choices": [choice]})

        def do_DELETE(self) -> None:
            self.told(200, {})

        def told(self, status: int, body: dict[str, Any]) -> None:
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_worker_that_does_not_know_the_lent_key_yet_and_a_busy_one_are_asked_again(tmp_path: Path):
    with gateway_that_first_answers(503, 429, 401) as url:
        here = settings(tmp_path, gateway__url=url, gateway__key="x", publish__tenant="acme", publish__name="support")
        assert [row.completion for row in replay.rows(here, 12, Silent())] == ["so it is"] * 3


def test_other_recipes_and_no_share_ask_nothing(tmp_path: Path):
    base = Base()
    assert replay.rows(settings(tmp_path, recipe="kto"), 80, Silent(), ask=base) == []
    assert replay.rows(settings(tmp_path, replay__share=0), 80, Silent(), ask=base) == []
    assert base.asked == []


def test_a_run_started_again_asks_only_for_what_is_missing(tmp_path: Path):
    first, again = Base(), Base()
    rows = replay.rows(settings(tmp_path), 40, Silent(), ask=first)
    kept = tmp_path / "run/replay.jsonl"
    kept.write_text(kept.read_text()[:-7])  # killed while it wrote the last answer
    assert replay.rows(settings(tmp_path), 40, Silent(), ask=again) == rows
    assert again.asked == first.asked[-1:]
    other = Base()
    replay.rows(settings(tmp_path, replay__max_tokens=64), 40, Silent(), ask=other)
    assert other.asked == first.asked


def test_fewer_prompts_than_the_share_needs_are_told_of(tmp_path: Path):
    said = io.StringIO()
    rows = replay.rows(settings(tmp_path), 10_000, PlainProgress(said), ask=Base())
    assert 80 < len(rows) < 127
    assert f"replay: {len(rows)} rows, 1.0% of all; for more, give replay.prompts a file" in said.getvalue()


def test_prompts_are_texts_or_chats_of_a_file(tmp_path: Path):
    chat = [{"role": "system", "content": "brief"}, {"role": "user", "content": "hello you"}]
    lines = [{"prompt": "good day"}, {"messages": [*chat, {"role": "assistant", "content": "never trained on"}]}]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = replay.rows(settings(tmp_path, replay__prompts=str(tmp_path / "prompts.jsonl")), 80, Silent(), ask=Base())
    assert [row.messages for row in rows] == [[{"role": "user", "content": "good day"}], chat]
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "fine"}\n{"question": "?"}\n')
    with pytest.raises(InvalidData, match=r"prompts.jsonl:2: there is no prompt: write a text under prompt"):
        replay.rows(settings(tmp_path, replay__prompts=str(tmp_path / "prompts.jsonl")), 80, Silent(), ask=Base())


def test_the_shipped_prompts_are_many_different_and_of_all_kinds_from_the_first():
    shipped = [json.loads(line) for line in Path(replay.__file__).with_name("replay.jsonl").read_text().splitlines()]
    assert len({row["prompt"] for row in shipped}) == len(shipped) >= 120
    assert len({row["topic"] for row in shipped[:30]}) == len({row["topic"] for row in shipped}) == 9


@pytest.mark.training
def test_a_batch_in_this_process_answers_as_each_prompt_would_alone(tmp_path: Path, tiny_model: Path):
    chosen = settings(tmp_path, model_path=str(tiny_model), training__threads=1, replay__max_tokens=8)
    import torch

    from trainer import model

    base = model.load(chosen)
    chats = [[{"role": "user", "content": text}] for text in ("a", "a much longer question than the first", "bc")]
    torch.manual_seed(0)  # its head is its embeddings, and repeats the last token for ever; another head does not
    base.model.lm_head.weight = torch.nn.Parameter(torch.randn_like(base.model.lm_head.weight))
    said = [_said(base, chat, torch) for chat in chats]
    # The tiny model never ends by itself: a token that it comes to say is made the end.
    ending = next(one[place] for one in said for place in range(2, 8) if one[place] not in one[:place])
    base.model.generation_config.eos_token_id = [ending]
    together = replay._generated(base, chats, 8)
    assert together == [replay._generated(base, [chat], 8)[0] for chat in chats]
    assert [text is not None for text in together] == [ending in one for one in said]


def _said(base: Any, chat: replay.Chat, torch: Any) -> list[int]:
    inputs = base.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        whole = base.model.generate(**inputs, max_new_tokens=8, do_sample=False, use_cache=True)
    found: list[int] = whole[0, inputs["input_ids"].shape[1] :].tolist()
    return found
