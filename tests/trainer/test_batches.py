"""Tokens and batches: what is supervised, what is cut, and that laying rows out in one sequence changes no number."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from adapters.examples import Example
from tests.trainer import tiny
from trainer.errors import InvalidConfig, NotServable
from trainer.model import Loaded, supervised_loss
from trainer.progress import Silent
from trainer.recipes.sft import may_be_laid_out
from trainer.served import require_same_tokens
from trainer.tokens import IGNORED, Collate, Row, render

pytestmark = [pytest.mark.training, pytest.mark.timeout(300)]


class Lines(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


SYSTEM = {"role": "system", "content": "count"}


class Engine(BaseHTTPRequestHandler):
    """A gateway whose engine renders chats with `template`."""

    tokenizer: Any
    template: str

    def do_GET(self) -> None:
        self._say({"base_model": tiny.NAME, "max_rank": 64, "ready": True, "kind": "vllm"})

    def do_POST(self) -> None:
        chat = json.loads(self.rfile.read(int(self.headers["content-length"])))["messages"]
        text = self.tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=True, chat_template=self.template
        )
        self._say({"ids": self.tokenizer(text, add_special_tokens=False).input_ids})

    def log_message(self, *_: Any) -> None:
        pass

    def _say(self, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def rendering(tokenizer: PreTrainedTokenizerBase, template: str) -> Iterator[str]:
    engine = type("Rendering", (Engine,), {"tokenizer": tokenizer, "template": template})
    with ThreadingHTTPServer(("127.0.0.1", 0), engine) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_template_that_the_engine_reads_otherwise_fails_the_run_with_both_readings(
    tmp_path: Path, tiny_model: Path, tokenizer: PreTrainedTokenizerBase
):
    rows = [asked("what is it?", "this"), Example(messages=[{"role": "user", "content": "hi"}], completion="ho")]
    names = {"publish__tenant": "acme", "publish__name": "support", "gateway__key": "k"}
    with rendering(tokenizer, tiny.TEMPLATE) as url:
        said = Lines()
        require_same_tokens(tiny.settings(tmp_path, tiny_model, gateway__url=url, **names), rows, said)
        assert said.lines == ["the engine makes the same token ids of 3 prompts"]
    with rendering(tokenizer, tiny.TEMPLATE.replace("'<|im_end|>' + '\n'", "'<|im_end|>'")) as url:
        wanted = tiny.settings(tmp_path, tiny_model, gateway__url=url, **names)
        with pytest.raises(
            NotServable, match=r"token \d+ on: here 'er\\nhi<\|im_end\|>\\n<\|im_.*', there 'er\\nhi<\|im_end\|><\|im_"
        ):
            require_same_tokens(wanted, rows, Lines())


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tiny_model)
    return found


def asked(text: str, completion: str) -> Example:
    return Example(messages=[SYSTEM, {"role": "user", "content": text}], completion=completion)


def rows_of(tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    examples = [asked("one" * n, "two" * (5 - n)) for n in range(1, 5)]
    return render(tokenizer, examples, max_tokens=200, overlong="drop").rows


def test_the_completion_and_the_end_of_its_turn_are_supervised_and_nothing_else(tokenizer: PreTrainedTokenizerBase):
    [row] = render(tokenizer, [asked("what is it?", "this")], max_tokens=200, overlong="drop").rows
    assert tokenizer.decode(row.ids) == (
        "<|im_start|>system\ncount<|im_end|>\n<|im_start|>user\nwhat is it?<|im_end|>\n"
        "<|im_start|>assistant\nthis<|im_end|>"
    )
    assert tokenizer.decode([label for label in row.labels if label != IGNORED]) == "this<|im_end|>"


def test_the_prompts_ids_are_those_the_chat_template_serves(tokenizer: PreTrainedTokenizerBase):
    example = asked("what is it?", "this")
    [row] = render(tokenizer, [example], max_tokens=200, overlong="drop").rows
    served = tokenizer.apply_chat_template(example.messages, add_generation_prompt=True, return_dict=False)
    assert row.ids[: len(served)] == served and row.labels[: len(served)] == [IGNORED] * len(served)


def test_overlong_rows_are_dropped_or_cut_and_counted(tokenizer: PreTrainedTokenizerBase):
    short, long, hopeless = asked("a", "b"), asked("a", "b" * 100), asked("a" * 500, "b")
    limit = len(render(tokenizer, [short], max_tokens=500, overlong="drop").rows[0].ids) + 10
    dropping = render(tokenizer, [short, long, hopeless], max_tokens=limit, overlong="drop")
    assert (len(dropping.rows), dropping.dropped, dropping.cut) == (1, 2, 0)
    cutting = render(tokenizer, [short, long, hopeless], max_tokens=limit, overlong="cut")
    assert (len(cutting.rows), cutting.dropped, cutting.cut) == (2, 1, 1)
    assert len(cutting.rows[1].ids) == limit


def test_a_role_the_template_refuses_is_an_error_for_people(tokenizer: PreTrainedTokenizerBase):
    strict = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    strict.chat_template = "{{ raise_exception('no such role') }}"
    with pytest.raises(InvalidConfig, match=r"chat template does not take a row \(no such role\)"):
        render(strict, [asked("a", "b")], max_tokens=200, overlong="drop")


def test_one_sequence_gives_the_loss_and_gradients_of_padded_rows(tiny_model: Path, tokenizer: PreTrainedTokenizerBase):
    rows = rows_of(tokenizer)
    rows.append(Row(rows[0].ids, rows[0].labels, 0.5))  # an equal row costs nothing, and counts
    found = []
    for packed in (True, False):
        model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        inputs = Collate(packed=packed, pad_id=2)(rows)
        loss, count = supervised_loss(model, inputs)
        loss.backward()
        gradient = model.model.layers[0].self_attn.q_proj.weight.grad
        found.append((inputs["input_ids"].numel(), loss.item(), count, gradient))
    (tokens, loss, count, gradient), (padded_tokens, padded_loss, padded_count, padded_gradient) = found
    assert tokens < padded_tokens and count == padded_count
    assert loss == pytest.approx(padded_loss, rel=1e-5)
    torch.testing.assert_close(gradient, padded_gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("attention", "heeds"), [("sdpa", True), ("eager", False)])
def test_a_model_that_does_not_heed_the_mask_gets_padded_batches(
    tiny_model: Path, tokenizer: PreTrainedTokenizerBase, attention: str, heeds: bool
):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32, attn_implementation=attention)
    loaded = Loaded(model.eval(), tokenizer, tiny_model, "cpu", autocast=False, packed=True)
    assert may_be_laid_out(loaded, rows_of(tokenizer)) is heeds


def test_a_batch_too_long_for_one_mask_is_padded():
    rows = [Row([5] * 900 + [6 + n, 7], [IGNORED] * 900 + [6 + n, 7]) for n in range(3)]
    assert Collate(packed=True, pad_id=0)(rows)["input_ids"].shape == (1, 900 + 3 * 2)
    others = [Row([n] * 900 + [6, 7], [IGNORED] * 900 + [6, 7]) for n in range(3)]
    assert Collate(packed=True, pad_id=0)(others)["input_ids"].shape == (3, 902)


def test_a_rows_weight_scales_its_part_of_the_loss(tiny_model: Path, tokenizer: PreTrainedTokenizerBase):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    one, two = rows_of(tokenizer)[:2]
    collate = Collate(packed=True, pad_id=2)
    first, second = (supervised_loss(model, collate([row]))[0].item() for row in (one, two))
    weighted, _ = supervised_loss(model, collate([Row(one.ids, one.labels, 3.0), Row(two.ids, two.labels, 0.5)]))
    assert weighted.item() == pytest.approx(3 * first + 0.5 * second, rel=1e-5)
