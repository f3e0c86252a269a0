"""Residency against the real fake engine: what is leased stays, what is wanted comes, what is bad never serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from adapters.errors import AdapterCorrupted
from adapters.ref import AdapterRef
from gateway.domain import Fallback, Variant
from gateway.engine.fake_engine import Options
from gateway.errors import Unavailable
from tests.gateway.serving.house import (
    BASE_MODEL,
    HELLO,
    DirectoryShelf,
    House,
    adapter,
    alias,
    open_house,
    picture,
    ref,
    until,
)

ONE, TWO = ref("acme/support@1"), ref("acme/support@2")
BODY = {"model": "tuned", "messages": HELLO}


async def loads(house: House) -> int:
    return int((await house.engine())["loads"])


async def test_a_hundred_requests_for_a_cold_version_load_it_once(house: House) -> None:
    before = await loads(house)
    leases = await asyncio.gather(*(house.residency.lease(TWO) for _ in range(100)))
    assert await loads(house) == before + 1
    assert house.residency.leased == {TWO}
    for lease in leases:
        lease.release()
        lease.release()
    assert house.residency.leased == frozenset()


async def test_a_client_that_leaves_does_not_end_the_load_for_the_others(house: House) -> None:
    await house.faults(load_seconds=0.3)
    first = asyncio.ensure_future(house.residency.lease(TWO))  # noqa: TID251  # a test's own task
    second = asyncio.ensure_future(house.residency.lease(TWO))  # noqa: TID251  # a test's own task
    await asyncio.sleep(0.1)
    first.cancel()
    (await second).release()
    assert TWO in house.residency.resident


async def test_a_leased_adapter_is_never_evicted() -> None:
    async with open_house(grace=0.05) as house:
        with await house.residency.lease(TWO):
            for _ in range(5):
                house.residency.wake()
                await asyncio.sleep(0.1)
            assert TWO in house.residency.resident and (await house.engine())["evictions"] == 0
        await until(lambda: TWO not in house.residency.resident)
        assert (await house.engine())["evictions"] == 1
        # What the aliases serve stays, used or not.
        assert ONE in house.residency.resident


async def test_what_a_neighbour_leases_is_not_evicted() -> None:
    async with open_house(grace=0.05) as house:
        neighbours = {str(TWO)}
        house.residency.leased_elsewhere = lambda: frozenset(neighbours)
        (await house.residency.lease(TWO)).release()
        for _ in range(3):
            house.residency.wake()
            await asyncio.sleep(0.1)
        assert TWO in house.residency.resident
        neighbours.clear()
        await until(lambda: TWO not in house.residency.resident)


async def test_a_version_that_answers_like_the_base_never_serves(house: House) -> None:
    await house.faults(inert=[str(TWO)])
    with pytest.raises(Unavailable):
        await house.residency.lease(TWO)
    assert "exactly as the base model" in house.residency.failed[TWO]
    assert (await house.post({**BODY, "model": "support@2"})).status_code == 503


async def test_a_version_with_overflowing_weights_never_serves(house: House) -> None:
    await house.faults(nan=[str(TWO)])
    with pytest.raises(Unavailable):
        await house.residency.lease(TWO)
    assert "not finite" in house.residency.failed[TWO]


async def test_a_failure_is_remembered_and_tried_again_when_prepared_anew(house: House) -> None:
    await house.faults(refuse=[str(TWO)])
    with pytest.raises(Unavailable) as told:
        await house.residency.lease(TWO)
    assert told.value.retry_after is not None and 1 <= told.value.retry_after <= 60
    before = await loads(house)
    for _ in range(20):
        with pytest.raises(Unavailable):
            await house.residency.lease(TWO)
    assert await loads(house) == before
    await house.faults(refuse=[])
    house.current.snapshot = picture(version=2, preparing=frozenset((TWO,)))
    house.residency.wake()
    await until(lambda: TWO in house.residency.resident)
    assert TWO not in house.residency.failed


async def test_a_broken_shelf_fails_its_version_only_and_names_no_path() -> None:
    class Broken(DirectoryShelf):
        async def path(self, ref: AdapterRef) -> Path:
            if ref == TWO:
                raise AdapterCorrupted("acme/support@2 is not what was published: publish it again.")
            if ref.tenant == "zeta":
                raise PermissionError(13, "Permission denied", "/secret/place")
            return await super().path(ref)

    async with open_house(shelf=Broken) as house:
        assert house.residency.failed[ref("zeta/support@1")] == "It could not be read from the adapter store."
        with pytest.raises(Unavailable):
            await house.residency.lease(TWO)
        assert "publish it again" in house.residency.failed[TWO]
        assert (await house.post(BODY)).status_code == 200


async def test_nothing_is_served_before_the_snapshot_is_read_and_everything_wanted_is_there() -> None:
    async with open_house(picture(version=0), ready=False) as house:
        await asyncio.sleep(0.2)
        assert not house.residency.ready
        refused = await house.post({**BODY, "model": "base"})
        assert refused.status_code == 503 and refused.headers["retry-after"]
        await house.faults(load_seconds=0.3)
        house.current.snapshot = picture()
        house.residency.wake()
        await asyncio.sleep(0.2)
        assert not house.residency.ready
        await until(lambda: house.residency.ready)
        assert {ONE, ref("zeta/support@1")} <= house.residency.resident


async def test_after_a_restart_of_the_engine_all_that_serves_is_loaded_before_it_is_ready(house: House) -> None:
    boot = house.residency.boot
    told: list[bool] = []
    house.residency.on_change = lambda: told.append(house.residency.ready)
    await house.faults(reboot=True, load_seconds=0.2)
    house.residency.wake()
    await until(lambda: not house.residency.ready)
    assert (await house.post(BODY)).status_code == 503
    await until(lambda: house.residency.ready)
    assert house.residency.boot != boot and ONE in house.residency.resident
    assert False in told and told[-1]


@pytest.mark.long
async def test_an_engine_that_hangs_while_its_health_is_fine_is_found_out() -> None:
    async with open_house(silence=0.1, patience=0.3) as house:
        await house.faults(hang=True)
        await until(lambda: not house.residency.ready, seconds=10)
        await house.faults(hang=False)
        await until(lambda: house.residency.ready, seconds=10)


async def test_one_place_stays_free_for_a_swap() -> None:
    many = [adapter(f"acme/support@{version}") for version in range(1, 9)]
    only = [alias("acme", "tuned", ("tuned", 1, "acme/support@1"))]
    options = Options(base_model=BASE_MODEL, max_cpu_loras=4)
    async with open_house(picture(adapters=many, aliases=only), options=options) as house:
        held = [await house.residency.lease(ref(f"acme/support@{version}")) for version in (1, 2, 3)]
        with pytest.raises(Unavailable):
            await house.residency.lease(ref("acme/support@4"))
        house.current.snapshot = picture(
            version=2, adapters=many, aliases=only, preparing=frozenset((ref("acme/support@5"),))
        )
        house.residency.wake()
        await until(lambda: ref("acme/support@5") in house.residency.resident)
        held[1].release()
        # The one that nobody uses any more makes room at once.
        (await house.residency.lease(ref("acme/support@6"))).release()
        assert TWO not in house.residency.resident and ref("acme/support@3") in house.residency.resident
        assert len((await house.engine())["requests"]) > 0


@pytest.mark.parametrize(
    ("policy", "served"), [(Fallback.ERROR, None), (Fallback.BASE, "base"), (Fallback.PREVIOUS, "acme/support@1")]
)
async def test_what_cannot_be_served_falls_back_as_the_alias_says_and_both_are_recorded(
    policy: Fallback, served: str | None
) -> None:
    before = (Variant("tuned", 1, ONE),)
    moved = alias("acme", "tuned", ("tuned", 1, str(TWO)), fallback=policy, previous=before, revision=2)
    async with _refusing(str(TWO)) as house:
        house.current.snapshot = picture(version=2, aliases=[moved])
        answer = await house.post(BODY)
        row = house.records.rows[-1]
        assert (row.assigned, row.served) == (str(TWO), served)
        if served is None:
            assert answer.status_code == 503 and "x-adapter" not in answer.headers
        else:
            assert answer.headers["x-adapter"] == served and answer.headers["x-fallback"] == "true"
            assert answer.headers["x-variant"] == "tuned"


@pytest.mark.long
async def test_an_episode_on_a_version_that_cannot_be_served_begins_anew() -> None:
    async with open_house(grace=0.01) as house:
        await house.post(BODY, x_episode_id="talk")
        await house.faults(refuse=[str(ONE)])
        moved = alias("acme", "tuned", ("tuned", 1, str(TWO)), revision=2)
        house.current.snapshot = picture(version=2, aliases=[moved])
        await until(lambda: ONE not in house.residency.resident)
        answer = await house.post(BODY, x_episode_id="talk")
        assert answer.headers["x-adapter"] == str(TWO)


async def test_an_engine_without_the_plugin_serves_the_base_only_and_says_so() -> None:
    async with open_house() as house:
        assert house.residency.status is not None and house.residency.status.plugin
        await house.faults(lacks=["/tuneloop/engine", "/tuneloop/adapters"])
        await until(lambda: house.residency.ready and not house.residency.status.plugin)
        with pytest.raises(Unavailable):
            await house.residency.lease(TWO)
        assert "base model only" in house.residency.failed[TWO]


@asynccontextmanager
async def _refusing(name: str) -> AsyncIterator[House]:
    async with open_house() as house:
        await house.faults(refuse=[name])
        yield house
