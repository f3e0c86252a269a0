"""What of a request's `metadata` is remembered."""

from __future__ import annotations

import json

from gateway.serving.endpoints import ENDPOINTS
from gateway.serving.labels import MOST, labels_of
from gateway.serving.request import CHAT_COMPLETIONS, parse

CHAT = {"model": "support", "messages": [{"role": "user", "content": "hi"}], "temperature": 0.5}


def test_short_labels_are_kept_beside_the_sampling_parameters_and_do_not_go_upstream() -> None:
    asked = parse(json.dumps({**CHAT, "metadata": {"plan": "pro", "language": "de"}}).encode(), CHAT_COMPLETIONS)
    assert asked.params() == {"temperature": 0.5, "metadata": {"language": "de", "plan": "pro"}}
    assert "metadata" not in json.loads(asked.body("x", "salt"))
    assert parse(json.dumps(CHAT).encode(), CHAT_COMPLETIONS).params() == {"temperature": 0.5}


def test_texts_addresses_and_whatever_is_no_label_are_not_kept() -> None:
    given = {
        "mail": "ann@example.com",
        "name": "Ann Smith",
        "long": "x" * 33,
        "": "x",
        "n": 1,
        "a b": "c",
        "ok": "v1.2-b",
    }
    assert labels_of(given) == {"ok": "v1.2-b"}
    assert len(labels_of({f"k{number}": "v" for number in range(50)})) == MOST
    assert labels_of("plan") == labels_of(None) == {}


def test_a_dialect_whose_metadata_names_the_user_keeps_none_of_it() -> None:
    messages = ENDPOINTS["/v1/messages"]
    body = {**CHAT, "max_tokens": 5, "metadata": {"user_id": "ann"}}
    assert "metadata" not in parse(json.dumps(body).encode(), messages).params()


def test_tensorzeros_tags_are_labels_but_for_who_the_user_is() -> None:
    tags = {"user_id": "ann", "plan": "pro", "ticket": "I was told that"}
    inference = {"function_name": "support", "input": {"messages": CHAT["messages"]}, "tags": tags}
    told = parse(json.dumps(inference).encode(), ENDPOINTS["/inference"])
    assert (told.params()["metadata"], told.targeting) == ({"plan": "pro"}, "ann")
    openai = ENDPOINTS["/openai/v1/chat/completions"]
    both = {**CHAT, "metadata": {"plan": "free"}}
    assert parse(json.dumps(both).encode(), openai).params()["metadata"] == {"plan": "free"}
    tagged = parse(json.dumps({**both, "tensorzero::tags": tags}).encode(), openai)
    assert tagged.params()["metadata"] == {"plan": "pro"}
    assert "tags" not in tagged.body("x", "salt").decode()
