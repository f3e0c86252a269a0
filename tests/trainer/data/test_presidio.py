"""presidio as the finder: its patterns on a blank pipeline, without a model and without the network."""

from __future__ import annotations

import pytest

from trainer.data.personal import masked

pytestmark = pytest.mark.long  # its import alone takes some seconds


def test_presidios_patterns_find_and_mask_and_let_plain_texts_alone():
    pytest.importorskip("presidio_analyzer")
    from trainer.data.presidio import Presidio

    finder = Presidio()
    text = (
        "mail bob@example.com, call (212) 555-0123, card 4111 1111 1111 1111, IBAN DE89370400440532013000, at 8.8.8.8"
    )
    clean = "mail <EMAIL>, call <PHONE>, card <CARD>, IBAN <IBAN>, at <IP>"
    assert masked(text, finder.find(text)) == clean
    for plain in (
        "I ordered 2 cards over 3 weeks ago, on 2024-01-15 at 10:30",
        "it went bad.Then it got better.So what",
    ):
        assert finder.find(plain) == []
