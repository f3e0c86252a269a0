"""Personal data: what is found, what is let alone, and that an Example loses it everywhere."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.examples import Example
from trainer.data.personal import Patterns, cleaned, masked

PATTERNS = Patterns()


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("write to bob.o+1@example.co.uk.", "write to <EMAIL>."),
        ("call +49 (0)30 1234567 or (212) 555-0123", "call <PHONE> or <PHONE>"),
        ("0049 30 1234567, 212-555-0199", "<PHONE>, <PHONE>"),
        ("card 4111 1111 1111 1111!", "card <CARD>!"),
        ("5500-0000-0000-0004", "<CARD>"),
        ("DE89 3704 0044 0532 0130 00 is mine, gb82west12345698765432 is not", "<IBAN> is mine, <IBAN> is not"),
        ("from 8.8.8.8 and 2a02:8108:abc::1", "from <IP> and <IP>"),
        ("my key is sk-abcdefghijklmnopqrstuvwx", "my key is <SECRET>"),
        ('api_key="abcd1234efgh5678", password: hunter2hunter2', 'api_key="<SECRET>", password: <SECRET>'),
        ("https://bob:hunter2@host/x", "https://bob:<SECRET>@host/x"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- ok", "<SECRET> ok"),
        ("SSN 123-45-6789, DNI 12345678Z", "SSN <NATIONAL_ID>, DNI <NATIONAL_ID>"),
        ("RSSMRA85T10A562S or 2 55 08 14 168 025 38", "<NATIONAL_ID> or <NATIONAL_ID>"),
        ("CPF 529.982.247-25", "CPF <NATIONAL_ID>"),
    ],
)
def test_it_is_found_and_replaced(text: str, clean: str):
    assert masked(text, PATTERNS.find(text)) == clean


@pytest.mark.parametrize(
    "text",
    [
        "order 1234567890123456 of 2024-01-15 at 10:30:45",
        "card 4111 1111 1111 1112 fails Luhn's check",
        "DE89 3704 0044 0532 0130 01 is no IBAN",
        "my router is 192.168.1.1, version 1.2.3.4, std::vector<a::b>",
        "ISBN 978-3-16-148410-0, 10.000.000,00 EUR, 12345678 and 12345678A",
        "the secret: patience. token = please_insert, password=changeme",
        "call 911 or 030 1234, 100 000 000 times; +5 points, 2+2=4",
        "a@b, @someone, 50 @ 3 each",
        "000-12-3456 123-00-4567 900-12-3456 2020-12-1234",
    ],
)
def test_what_only_looks_like_it_is_let_alone(text: str):
    assert PATTERNS.find(text) == []


def test_an_example_loses_it_in_every_text_and_what_was_found_is_told_without_it():
    mail = "bob@example.com"
    parts = [{"type": "text", "text": f"I am {mail}"}, {"type": "image_url", "image_url": {"url": "data:" + mail}}]
    example = Example(
        messages=[{"role": "user", "content": parts}, {"role": "tool", "content": mail}],
        completion=f"hello {mail} and {mail}",
        kind="preference",
        rejected=mail,
        unit=mail,
    )
    clean, found = cleaned(example, PATTERNS, mask=True)
    assert clean.completion == "hello <EMAIL> and <EMAIL>" and clean.rejected == "<EMAIL>"
    assert clean.messages[0]["content"][0]["text"] == "I am <EMAIL>" and clean.messages[1]["content"] == "<EMAIL>"
    assert clean.unit is not None and mail not in clean.unit
    assert len(found) == 6 and not any(mail in one.around for one in found)
    assert cleaned(example, PATTERNS, mask=False)[0] is example
    assert cleaned(clean, PATTERNS, mask=True) == (clean, [])


@given(st.text(max_size=60) | st.text("0123456789 .-+()@:abcDEX", max_size=40))
def test_any_text_is_searched_and_masking_leaves_nothing_of_what_was_found(text: str):
    spans = PATTERNS.find(text)
    assert all(one.end <= other.start for one, other in pairwise(spans))
    assert all(0 <= span.start < span.end <= len(text) for span in spans)
    assert (masked(text, spans) == text) == (not spans)
