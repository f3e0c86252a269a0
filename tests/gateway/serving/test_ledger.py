"""The table of counters: what it does when it is full, and with real processes of which some are killed or frozen."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gateway.serving.ledger import HELD, IDLE_SECONDS, REQUESTS, RUNNING, WAYS, Ledger
from gateway.serving.limits import Limiter
from tests.gateway.serving.ledger_worker import BY, NOW, WHO, take
from tests.gateway.serving.limited import Gate, tenant


class Worker:
    """A process of `ledger_worker`."""

    def __init__(self, ledger: Ledger, index: int) -> None:
        command = [sys.executable, "-m", "tests.gateway.serving.ledger_worker", str(ledger.fd), str(index)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, pass_fds=[ledger.fd])
        self.hears("ready")

    def tell(self, order: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def hears(self, word: str) -> None:
        assert self.answer() == word

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def workers(ledger: Ledger, count: int) -> Iterator[list[Worker]]:
    """Workers 1, 2, … on the ledger; the test itself is worker 0."""
    made: list[Worker] = []
    try:
        for index in range(1, count + 1):
            made.append(Worker(ledger, index))  # noqa: PERF401 - those made are ended though the next one fails
        yield made
    finally:
        for worker in made:
            worker.process.send_signal(signal.SIGCONT)
            worker.kill()


@pytest.mark.processes
def test_three_processes_let_in_exactly_the_limit_and_a_killed_one_gives_back_its_own() -> None:
    ledger = Ledger.create(4)
    mine = Limiter(ledger, clock=lambda: NOW)
    with workers(ledger, 3) as (one, two, three):
        for worker in (one, two, three):
            worker.tell("take 200")  # all three at once, 600 for 150 places
        taken = {worker: int(worker.answer()) for worker in (one, two, three)}
        assert sum(taken.values()) == 150
        assert not take(mine)

        one.kill()
        ledger.clear(1)  # as the supervisor does
        assert sum(take(mine) for _ in range(200)) == taken[one]

        again = Worker(ledger, 1)
        again.tell("take 10")
        assert again.answer() == "0", "a new process holds nothing, and finds the others'"
        again.kill()
        ledger.clear(1)
        cells = mine.tenant("acme").cells
        assert (cells[RUNNING], cells[HELD]) == (150, 1500)
        assert cells[REQUESTS] == 150 + taken[one], "what was let in stays counted"


@pytest.mark.processes
def test_wherever_a_worker_is_killed_nothing_stays_behind() -> None:
    ledger, chance = Ledger.create(3), random.Random(7)
    mine = Limiter(ledger, clock=lambda: NOW)
    lock = os.open(f"/proc/self/fd/{ledger.fd}", os.O_RDWR)
    with workers(ledger, 2) as running:
        for _ in range(6):
            for worker in running:
                worker.tell("churn")
                worker.hears("churning")
            time.sleep(chance.uniform(0.01, 0.05))
            for index, worker in enumerate(running, 1):
                worker.kill()
                ledger.clear(index)
                running[index - 1] = Worker(ledger, index)
            assert take(mine)
            for account in (mine.tenant("acme"), mine.key(BY.id)):
                assert (account.cells[RUNNING], account.cells[HELD]) == (1, 10)
            ledger.clear(0)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises if somebody holds it: the dead hold no lock
            fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


@pytest.mark.processes
def test_a_frozen_worker_with_the_lock_delays_the_others_for_milliseconds_once() -> None:
    ledger = Ledger.create(2)
    mine = Limiter(ledger, clock=lambda: NOW)
    assert take(mine)
    with workers(ledger, 1) as [worker]:
        worker.tell("hold")
        worker.hears("held")
        worker.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        assert sum(take(mine) for _ in range(100)) == 100
        assert time.monotonic() - began < 1
        assert mine.tenant(WHO.name).cells[RUNNING] == 101
    ledger.clear(1)
    assert take(mine)


def test_counters_outlive_the_worker_and_what_it_had_under_way_does_not() -> None:
    ledger, who = Ledger.create(), tenant(requests_per_minute=5, concurrent_requests=3)
    before = Gate(ledger)
    assert before.admitted(who) == 3
    after = Gate(Ledger.attach(os.dup(ledger.fd), 0), before.clock)
    assert after.admitted(who) == 2


def test_a_full_table_gives_away_what_nobody_uses_and_else_limits_each_worker_on_its_own() -> None:
    ledger = Ledger.create(2, sets=1)
    gate = Gate(ledger)
    other = Gate(Ledger.attach(os.dup(ledger.fd), 1), gate.clock)
    busy = [tenant(f"busy-{number}", concurrent_requests=1) for number in range(WAYS - 1)]
    for who in busy:
        gate.ask(who)
    ended = tenant("ended", requests_per_minute=3)
    gate.ask(ended).settle(1)

    late = tenant("late", requests_per_minute=3)
    assert (gate.admitted(late), other.admitted(late)) == (3, 3), "full: three in each"

    gate.clock.move(IDLE_SECONDS + 1)
    new = tenant("new", requests_per_minute=3)
    assert gate.admitted(new) + other.admitted(new) == 3, "it has the place of the one that ended"
    assert [other.admitted(who) for who in busy] == [0] * len(busy), "who has something running keeps its place"
    assert gate.admitted(ended) == 3, "it finds itself a place, or goes on alone, and has refilled"
