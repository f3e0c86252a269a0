"""Moves an alias: prepare, commit, acknowledge. Half-done never shows.

    prepare      the versions' bytes are verified, a preparation is written, and every live worker makes them resident
    commit       one transaction: the alias moves, the preparation goes, the audit row is there, the version grows
    acknowledge  every live worker has taken up that version, or has stopped renewing its report

Prepare may fail and then leaves nothing behind; a preparation whose process died runs out by itself. Draining and
evicting what was replaced is each worker's own business. Two swaps of one alias: the one that commits second is
refused, since the alias is no longer what it was planned on. This module knows workers by their reports only.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from adapters.ref import AdapterRef
from adapters.store import AdapterStore
from gateway.control.layers import require_disjoint
from gateway.control.names import unknown_adapter
from gateway.control.shelf import in_store
from gateway.domain import SHADOW, Adapter, Alias, Swapped, WorkerReport
from gateway.errors import AdapterRefused, Conflict, Unavailable
from gateway.experiment import Experiment, Stage
from gateway.store import adapters, aliases, experiments, preparations, workers
from gateway.store.changes import change
from gateway.store.database import Connection, Database
from gateway.store.notices import WORKERS, Listener, listen
from gateway.store.snapshots import read_version

POLL_SECONDS = 0.5
"""A report that runs out tells nobody, so waiting also means looking."""

OLD_NEWS_SECONDS = 5
"""A worker may still report why a version failed before; only after this long does that count for a new attempt too."""

SPARE_SECONDS = 60
"""How much longer a preparation lives than its swap may wait: time to commit in."""


_Failure = tuple[str, str, str]
"""Worker, version, and its sentence."""


@dataclass(frozen=True, slots=True)
class Move:
    """What a swap is to do: `before` (None: there is no such alias yet) becomes `after`, because of `reason`
    ("set", "promote", "rollback", "shadow"; "experiment …" for a step of one, which brings the `experiment` as it is
    from then on, and a `note` for the audit).
    """

    before: Alias | None
    after: Alias
    actor: str
    reason: str
    experiment: Experiment | None = None
    note: Mapping[str, Any] = field(default_factory=dict)

    @property
    def refs(self) -> frozenset[AdapterRef]:
        """The versions that `after` sends traffic to, or clients may name; of a shadow, its candidate alone; of a step
        of an experiment, what was not so before: users are taken off a candidate without a question to the engine.

        A candidate that could not be loaded any more must not hold up what the alias serves, nor the other way round.
        """
        if self.reason == SHADOW:
            return _mirrored(self.after)
        if self.experiment is not None:
            mirrored = _mirrored(self.after) - _mirrored(self.before)
            return _served(self.after) - _served(self.before) | mirrored
        return frozenset(variant.ref for variant in self.after.variants if variant.ref is not None)

    @property
    def told(self) -> tuple[str, str, dict[str, Any]]:
        """Action, subject and detail of its audit row."""
        after, detail = self.after, {"revision": self.after.revision}
        if self.experiment is not None:
            about = {"alias": after.name, "stage": self.experiment.stage.value}
            return self.reason.replace(" ", "."), self.experiment.id, {**about, **detail, **self.note}
        if self.reason == SHADOW:
            shadow = None if after.shadow is None else aliases.shadow_to_row(after.shadow)
            return f"alias.{self.reason}", after.name, {**detail, "shadow": shadow}
        return f"alias.{self.reason}", after.name, {**detail, "variants": aliases.variants_to_rows(after.variants)}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A move whose versions every live worker holds. `id` is its preparation's, None if nothing needed one."""

    move: Move
    id: str | None


class Swaps:
    """`prepare_seconds` and `acknowledge_seconds` are the longest waits for the workers."""

    def __init__(
        self, db: Database, store: AdapterStore, *, prepare_seconds: float = 60, acknowledge_seconds: float = 30
    ) -> None:
        self._db = db
        self._store = store
        self._prepare_seconds = prepare_seconds
        self._acknowledge_seconds = acknowledge_seconds

    async def swap(self, move: Move) -> Swapped:
        """All three phases. Raises what they raise; after `commit` only `Unavailable`, and its sentence says so."""
        timings: dict[str, float] = {}
        with _timed(timings, "total"):
            async with AsyncExitStack() as stack:
                with _timed(timings, "prepare"):
                    news = await stack.enter_async_context(listen(self._db.url, WORKERS))
                    prepared = await self.prepare(move, news)
                with _timed(timings, "commit"):
                    version = await self.commit(prepared)
                with _timed(timings, "acknowledge"):
                    await self.acknowledge(move.after, version, news)
        return Swapped(move.after, timings)

    async def confirm(self, alias: Alias) -> Swapped:
        """For a move to where the alias is already: wait until every live worker has it."""
        timings = dict.fromkeys(("prepare", "commit"), 0.0)
        with _timed(timings, "total"), _timed(timings, "acknowledge"):
            async with listen(self._db.url, WORKERS) as news:
                await self.acknowledge(alias, await read_version(self._db), news)
        return Swapped(alias, timings)

    async def prepare(self, move: Move, news: Listener) -> Prepared:
        """Have every live worker hold the move's versions. `news` tells of their reports.

        Raises `NotFound` or `Conflict` for a version that is not registered, retired or withheld by its gate,
        `AdapterRefused` for one that is damaged or that a worker cannot serve, `Unavailable` when a worker does not get
        there in time.
        """
        if not move.refs:
            return Prepared(move, None)
        for ref in sorted(move.refs):
            await in_store(self._store.open, ref)
        prepared = Prepared(move, secrets.token_hex(8))
        try:
            told = _failures(move.refs, await workers.live(self._db))
            version = await self._announce(prepared)
            patience = time.monotonic() + OLD_NEWS_SECONDS

            def lacking(reports: Sequence[WorkerReport]) -> str | None:
                known = told if time.monotonic() < patience else frozenset[_Failure]()
                return _unprepared(move.refs, version, reports, known)

            await self._wait(lacking, self._prepare_seconds, news)
        except BaseException:
            await self._abandon(prepared)
            raise
        return prepared

    async def commit(self, prepared: Prepared) -> int:
        """Move the alias; returns the snapshot version that does. Raises `Conflict` when something moved in between."""
        try:
            return await self._commit(prepared)
        except BaseException:
            await self._abandon(prepared)
            raise

    async def acknowledge(self, alias: Alias, version: int, news: Listener) -> None:
        """Return when no live worker uses an older picture than `version`. Raises `Unavailable` if one stays behind."""
        try:
            await self._wait(lambda reports: _behind(version, reports), self._acknowledge_seconds, news)
        except Unavailable as error:
            raise Unavailable(
                f"The alias `{alias.name}` is at revision {alias.revision} now, but not every worker confirmed it.",
                remedy=error.message,
                code="committed_unconfirmed",
            ) from error

    async def _announce(self, prepared: Prepared) -> int:
        move, db = prepared.move, self._db
        assert prepared.id is not None
        async with change(db, "swap.prepare", move.after.name, tenant=move.after.tenant, actor=move.actor) as new:
            new.detail["refs"] = sorted(map(str, move.refs))
            await _require_usable(new.connection, move.refs)
            seconds = self._prepare_seconds + SPARE_SECONDS
            await preparations.insert(new.connection, prepared.id, move.refs, seconds=seconds)
        return new.version

    async def _commit(self, prepared: Prepared) -> int:
        move, after = prepared.move, prepared.move.after
        action, subject, detail = move.told
        async with change(self._db, action, subject, tenant=after.tenant, actor=move.actor) as new:
            new.detail |= detail
            if await aliases.find(new.connection, after.tenant, after.name) != move.before:
                raise Conflict(f"The alias `{after.name}` was changed meanwhile.", remedy="Look at it, and try again.")
            await _require_usable(new.connection, move.refs)
            if prepared.id is not None and not await preparations.remove(new.connection, prepared.id):
                raise Conflict("The preparation ran out before the commit.", remedy="Try again.")
            if move.experiment is not None:
                await require_disjoint(new.connection, move.experiment)
                await experiments.put(new.connection, move.experiment)
            elif move.before and move.before.experiment not in (None, after.experiment):
                why = f"the alias was changed ({move.reason})"
                await experiments.end(new.connection, move.before.experiment, Stage.STOPPED, reason=why)
            await aliases.put(new.connection, after, actor=move.actor, reason=move.reason)
        return new.version

    async def _abandon(self, prepared: Prepared) -> None:
        """Leave nothing behind. When the database is away too, the preparation runs out by itself."""
        if prepared.id is None:
            return
        move = prepared.move
        with suppress(Unavailable, _NothingLeft):
            async with change(
                self._db, "swap.abandon", move.after.name, tenant=move.after.tenant, actor=move.actor
            ) as new:
                if not await preparations.remove(new.connection, prepared.id):
                    raise _NothingLeft

    async def _wait(
        self, lacking: Callable[[Sequence[WorkerReport]], str | None], seconds: float, news: Listener
    ) -> None:
        """Until the live workers' reports lack nothing. Raises `Unavailable` with what they lack after `seconds`."""
        give_up = time.monotonic() + seconds
        while (what := lacking(await workers.live(self._db))) is not None:
            if time.monotonic() >= give_up:
                raise Unavailable(what)
            await news.wait(POLL_SECONDS)


def _served(alias: Alias | None) -> frozenset[AdapterRef]:
    """What an alias sends traffic to now: while an experiment is paused, or has no users yet, its control alone."""
    if alias is None:
        return frozenset()
    idle = alias.experiment is not None and alias.split is None
    return frozenset(one.ref for one in alias.variants[: 1 if idle else None] if one.ref is not None)


def _mirrored(alias: Alias | None) -> frozenset[AdapterRef]:
    shadow = alias.shadow if alias is not None else None
    return frozenset((shadow.ref,)) if shadow is not None and shadow.ref is not None else frozenset()


class _NothingLeft(Exception):
    """The swap had no preparation any more: committed, run out, or never written."""


def _failures(refs: frozenset[AdapterRef], reports: Sequence[WorkerReport]) -> frozenset[_Failure]:
    wanted = set(map(str, refs))
    return frozenset(
        (report.worker, ref, sentence) for report in reports for ref, sentence in report.failed.items() if ref in wanted
    )


def _unprepared(
    refs: frozenset[AdapterRef], version: int, reports: Sequence[WorkerReport], known: frozenset[_Failure]
) -> str | None:
    """Which worker lacks which version, in a sentence. Raises `AdapterRefused` for a failure that is not `known`."""
    aware = [report for report in reports if report.snapshot_version >= version]
    for worker, ref, sentence in sorted(_failures(refs, aware) - known):
        raise AdapterRefused(f"Worker {worker} cannot serve {ref}: {sentence}")
    for report in reports:
        for text in sorted(map(str, refs)):
            if report not in aware or text not in report.resident:
                state = "" if report.ready else ", which is not ready,"
                return f"Worker {report.worker}{state} did not get {text} onto its engine in time. Nothing was changed."
    return None


def _behind(version: int, reports: Sequence[WorkerReport]) -> str | None:
    late = [report.worker for report in reports if report.snapshot_version < version]
    return f"Worker {late[0]} still uses an older picture." if late else None


async def _require_usable(connection: Connection, refs: frozenset[AdapterRef]) -> None:
    for ref in sorted(refs):
        adapter = await adapters.find(connection, ref)
        if adapter is None:
            raise unknown_adapter(ref)
        if adapter.retired:
            raise Conflict(f"{ref} is retired.", remedy="Name another version.", param="ref")
        if not adapter.servable:
            raise _withheld(adapter)


def _withheld(adapter: Adapter) -> Conflict:
    """The gate's own sentence, and what to do about it."""
    said = f"{adapter.ref} was refused by its gate"
    remedy = "Train again, or change the gate's policy in the run's config and run it again: that is a new version."
    if adapter.verdict == "undecided":
        said = f"{adapter.ref} is a trial that its run's gate has not decided about"
        remedy = "Let the run finish, which publishes its result under the adapter's own name."
    reason = f": {adapter.reason.rstrip('.')}" if adapter.reason else ""
    return Conflict(f"{said}{reason}.", remedy=remedy, param="ref", code=f"version_{adapter.verdict}")


@contextmanager
def _timed(timings: dict[str, float], phase: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    timings[phase] = round((time.perf_counter() - started) * 1000, 3)
