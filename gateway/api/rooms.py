"""What the HTTP edges call: the rooms of one worker, handed in by the composition root. It builds none of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gateway.control.adapters import Adapters
from gateway.control.aliases import Aliases
from gateway.control.experiments import Experiments
from gateway.control.keys import Keys
from gateway.control.lineage import Lineages
from gateway.control.metrics import Metrics
from gateway.control.tenants import Tenants
from gateway.control.users import Users
from gateway.evaluation.judging import Judging
from gateway.feedback.intake import Intake
from gateway.serving.inside import Serves
from gateway.snapshot import Current
from gateway.store.database import Database


class Render(Protocol):
    """As `engine.base.Engine.render`."""

    async def __call__(self, messages: Sequence[dict[str, Any]], *, add_generation_prompt: bool) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Rooms:
    """`readiness` says in a few words why this worker should get no traffic now, or None when it should.

    `engine_view` is the installation's view of the engine as JSON, `render` the engine's own rendering of a chat into
    token ids; `door` is the data plane's, for what the console asks; `metrics_text` is the Prometheus page;
    uploads of at most `max_adapter_bytes` are staged in `upload_dir`.
    """

    db: Database
    current: Current
    tenants: Tenants
    keys: Keys
    metrics: Metrics
    adapters: Adapters
    aliases: Aliases
    experiments: Experiments
    lineages: Lineages
    users: Users
    intake: Intake
    judging: Judging
    door: Serves
    engine_view: Callable[[], Awaitable[dict[str, Any]]]
    render: Render
    admin_key: str
    max_adapter_bytes: int
    upload_dir: Path
    readiness: Callable[[], str | None]
    metrics_text: Callable[[], bytes]
