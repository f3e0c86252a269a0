"""Replay behind a whole gateway, as one starts it: the base model answers, by a key that is lent and given back."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.gateway.test_supervisor import start
from trainer import config, replay
from trainer.progress import PlainProgress


@pytest.mark.processes
def test_the_base_model_answers_behind_the_gateway_and_the_lent_key_is_revoked(tmp_path: Path):
    (tmp_path / "home").mkdir()
    with start(tmp_path / "home") as serving:
        given = {
            "base_model": "org/model",
            "run_dir": str(tmp_path / "run"),
            "data.train": "rows.jsonl",
            "replay.share": 0.2,
            "gateway.url": serving.url,
            "gateway.key": (serving.home / "admin.key").read_text().strip(),
            "publish.tenant": "acme",
            "publish.name": "support",
        }
        said = io.StringIO()
        rows = replay.rows(config.load(None, given.items(), environ={}), 40, PlainProgress(said))
        assert len(rows) == 10 and all(row.completion for row in rows), said.getvalue()
        assert "behind the gateway" in said.getvalue()
        keys = serving.admin("GET", "/tenants/acme/keys").json()["data"]
        lent = [key for key in keys if "evaluate" in key["scopes"]]
        assert len(lent) == 1 and lent[0]["revoked_at"] is not None
        again = replay.rows(config.load(None, given.items(), environ={}), 40, PlainProgress(said))
        assert again == rows and len(serving.admin("GET", "/tenants/acme/keys").json()["data"]) == len(keys)
