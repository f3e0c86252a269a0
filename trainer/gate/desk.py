"""The gate's directory in the run's: what was begun and what was decided, so that a killed gate neither forgets nor
leaves anything at the gateway. It decides nothing.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any

from adapters.manifest import Gate, Manifest
from adapters.weights import WEIGHTS
from trainer.config import RunSettings
from trainer.errors import GatewayFailed
from trainer.gateway_client import Gateway
from trainer.runlog import RunDirectory

KEY_HOURS = 12.0
"""The gate revokes its key; this is for one that was killed and never started again."""


class Desk:
    """The gate's directory in the run's: what was begun, and what was decided. Each file is replaced in one step."""

    def __init__(self, run: RunDirectory, settings: RunSettings) -> None:
        assert settings.gate is not None
        self.room = run.path / "gate"
        self.room.mkdir(exist_ok=True)
        target, wanted = settings.publish, settings.gate.model_dump(mode="json", exclude={"judge": {"key"}})
        weights = Manifest.read(run.adapter).files[WEIGHTS]
        essence = {"weights": weights, "name": f"{target.tenant}/{target.name}", "gate": wanted}
        found = self._read("begun.json")
        self._begun: dict[str, Any] = (
            found if found.get("about") == essence else {"about": essence, "mark": secrets.token_hex(4)}
        )
        self._begun |= {
            "key": found.get("key"),
            "trials": found.get("trials", []),
        }  # a decision before this one left them
        self.note()

    @property
    def mark(self) -> str:
        """What makes this decision's trial a version of its own."""
        return str(self._begun["mark"])

    def note(self, **facts: Any) -> None:
        self._begun |= facts
        self._write("begun.json", self._begun)

    def remember(self, name: str, find: Callable[[], str]) -> str:
        """What was found once is what a restarted gate goes on with."""
        if name not in self._begun:
            self.note(**{name: find()})
        return str(self._begun[name])

    def keep(self, report: dict[str, Any], gate: Gate) -> None:
        self._write("report.json", {**report, "mark": self.mark, "gate": gate.model_dump(mode="json")})

    def decided(self) -> Gate | None:
        """The verdict, if it was reached with these settings on these weights."""
        found = self._read("report.json")
        return Gate.model_validate(found["gate"]) if found.get("mark") == self.mark else None

    @contextlib.contextmanager
    def lent_key(self, gateway: Gateway, tenant: str) -> Iterator[str]:
        """A key to ask with; one that a killed gate left behind ends first."""
        self._end_key(gateway, tenant)
        key_id, key = gateway.lend_key(tenant, hours=KEY_HOURS)
        self.note(key=key_id)
        try:
            yield key
        finally:
            self._end_key(gateway, tenant)

    def note_trial(self, ref: str) -> None:
        """Remember a version that must be retired in the end."""
        if ref not in self._begun["trials"]:
            self.note(trials=[*self._begun["trials"], ref])

    def retire_trials(self, settings: RunSettings) -> None:
        """The last thing: from here on the gateway has nothing of this gate but the record."""
        if not self._begun["trials"]:
            return
        with Gateway(settings.gateway) as gateway:
            for ref in self._begun["trials"]:
                gateway.retire(str(settings.publish.tenant), ref)
        self.note(trials=[])

    def _end_key(self, gateway: Gateway, tenant: str) -> None:
        if self._begun.get("key") is not None:
            with contextlib.suppress(GatewayFailed):  # the next try ends it; it ends by itself, too
                gateway.revoke_key(tenant, str(self._begun["key"]))
                self.note(key=None)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.room / name).read_text("utf-8"))
        except FileNotFoundError:
            return {}
        return found

    def _write(self, name: str, found: dict[str, Any]) -> None:
        draft = self.room / f"{name}.draft"
        draft.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", "utf-8")
        draft.replace(self.room / name)
