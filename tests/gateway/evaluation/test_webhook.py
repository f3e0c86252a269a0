"""Messages reach their receiver: signed, at least once, after refusals and deaths, and nobody waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from gateway.evaluation import webhook
from gateway.evaluation.webhook import Webhook, key_of, pause_after, signed
from gateway.settings import Settings, WebhookSettings
from gateway.store import outbox
from gateway.store.database import Database
from tests.gateway.evaluation.receiver import SECRET, Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().listening() as one:
        yield one


async def posted(db: Database, *ids: str) -> None:
    async with db.transaction() as connection:
        for one in ids:
            await outbox.put(connection, one, '{"type": "experiment.stage", "data": {"why": "größer"}}')


async def until(look: Callable[[], object], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not look():  # noqa: ASYNC110 - what is waited for happens in the receiver's thread
            await asyncio.sleep(0.02)


async def test_the_signature_is_that_of_the_standards_own_example() -> None:
    # standard-webhooks/libraries: the vector that its libraries are tested with.
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed("msg_p5jXN8AQM9LWM0D4loKWxJek", '{"test": 2432232314}', key=key, at=1614265330)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert key_of("plain words") == b"plain words" and key_of("whsec_no base64") == b"whsec_no base64"


async def test_a_message_is_taken_once_and_then_gone(db: Database, receiver: Receiver) -> None:
    await posted(db, "msg_1", "msg_2")
    async with httpx.AsyncClient() as client:
        hook = Webhook(db, receiver.url, SECRET)
        assert [await hook.deliver(client) for _ in range(3)] == [True, True, False]
    assert receiver.ids == ["msg_1", "msg_2"] and receiver.got[0]["data"]["why"] == "größer"
    assert await outbox.waiting(db) == 0


@pytest.mark.long
async def test_a_refused_message_is_tried_again_later_and_does_not_hold_up_the_next(
    db: Database, receiver: Receiver
) -> None:
    await posted(db, "msg_1")
    receiver.status = 500
    hook = Webhook(db, receiver.url, SECRET)
    async with asyncio.TaskGroup() as group:
        delivering = group.create_task(hook.run())
        await until(lambda: receiver.refused)
        receiver.status = 200
        await posted(db, "msg_2")
        hook.wake()
        await until(lambda: receiver.ids)
        assert receiver.ids == ["msg_2"]
        await asyncio.sleep(1.3)  # the first pause is at most 1.25 s
        hook.wake()
        await until(lambda: len(receiver.ids) == 2)
        delivering.cancel()
    assert receiver.ids == ["msg_2", "msg_1"]


async def test_a_message_whose_sender_died_is_due_again_under_the_same_id(db: Database, receiver: Receiver) -> None:
    await posted(db, "msg_1")
    assert await outbox.claim(db, 40) is not None  # and no more is heard of whoever that was
    async with httpx.AsyncClient() as client:
        hook = Webhook(db, receiver.url, SECRET)
        assert not await hook.deliver(client)
        async with db.transaction() as connection:  # forty seconds later
            await connection.execute("UPDATE outbox SET due_at = due_at - interval '40 seconds'")
        assert await hook.deliver(client)
    assert receiver.ids == ["msg_1"]


async def test_nobody_at_the_address_is_no_error_of_ours(db: Database) -> None:
    await posted(db, "msg_1")
    async with httpx.AsyncClient() as client:
        assert await Webhook(db, "http://127.0.0.1:1/hooks", SECRET).deliver(client)
    assert await outbox.waiting(db) == 1


async def test_what_nobody_took_for_three_days_is_given_up(db: Database) -> None:
    await posted(db, "msg_1")
    async with db.transaction() as connection:
        await connection.execute("UPDATE outbox SET created_at = created_at - interval '73 hours'")
    async with httpx.AsyncClient() as client:
        await Webhook(db, "http://127.0.0.1:1/hooks", SECRET).deliver(client)
    assert await outbox.waiting(db) == 0


def test_pauses_double_up_to_an_hour() -> None:
    pauses = [pause_after(attempts, jitter=lambda: 0.5) for attempts in range(1, 100)]
    assert pauses[:4] == [1, 2, 4, 8] and pauses[-1] == webhook.PAUSES[1]
    assert 0.75 <= pause_after(1, jitter=lambda: 0.0) < pause_after(1, jitter=lambda: 1.0) <= 1.25


def test_a_receiver_without_a_secret_is_refused_at_the_start() -> None:
    with pytest.raises(ValidationError, match="GATEWAY_WEBHOOK__SECRET"):
        WebhookSettings(url="https://example.org/hooks")
    with pytest.raises(ValidationError, match="pattern"):
        WebhookSettings(url="example.org/hooks", secret=SecretStr("s"))


def test_the_secret_reaches_workers_by_a_variable_of_its_own() -> None:
    webhook = WebhookSettings(url="https://example.org/hooks", secret=SecretStr("between us"))
    child = Settings(webhook=webhook).environment()
    assert child["GATEWAY_WEBHOOK__SECRET"] == "between us" and child["GATEWAY_WEBHOOK__URL"] == webhook.url
    assert "between us" not in child["GATEWAY_SETTINGS_JSON"]
