# SPDX-License-Identifier: Apache-2.0
"""Turns: how many of a kind run at once, and in which order."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading

import pytest

from os_brick import exception
from os_brick.initiator.linux.call import Call, SystemClock
from os_brick.initiator.linux.host import Turns

WAIT_S = 30


class Watched(SystemClock):
    """A clock that tells when somebody begins to wait."""

    def __init__(self) -> None:
        self.waiting = threading.Semaphore(0)

    def wait(self, seconds: float, event: threading.Event | None = None) -> None:
        self.waiting.release()
        super().wait(seconds, event)


def call(limit_s: float = WAIT_S, clock: SystemClock | None = None) -> Call:
    return Call("test", clock or SystemClock(), limit_s)


def test_no_more_than_allowed_run_at_once() -> None:
    turns = Turns(2)
    both_in = threading.Barrier(2)
    lock = threading.Lock()
    inside: list[int] = []
    most = 0

    def one(number: int) -> None:
        nonlocal most
        with turns.taken(call(), "a turn"):
            with lock:
                inside.append(number)
                most = max(most, len(inside))
            both_in.wait(WAIT_S)
            with lock:
                inside.remove(number)
            both_in.wait(WAIT_S)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))
    assert most == 2


def test_who_came_first_is_served_first() -> None:
    turns = Turns(1)
    clock = Watched()
    served: list[int] = []

    def one(number: int) -> None:
        with turns.taken(call(clock=clock), "a turn"):
            served.append(number)

    with concurrent.futures.ThreadPoolExecutor(5) as pool, turns.taken(call(), "a turn"):
        for number in range(5):
            pool.submit(one, number)
            assert clock.waiting.acquire(timeout=WAIT_S)
    assert served == [0, 1, 2, 3, 4]


def test_who_gives_up_is_named_what_was_waited_for_and_takes_no_turn_along() -> None:
    turns = Turns(1)
    with (
        turns.taken(call(), "a turn"),
        pytest.raises(exception.DeadlineExceeded, match="a turn at the record"),
        turns.taken(call(limit_s=0.01), "a turn at the record"),
    ):
        pytest.fail("there was no turn to be had")
    with turns.taken(call(limit_s=0.01), "a turn"):
        pass


def test_a_failure_gives_the_turn_back() -> None:
    turns = Turns(1)
    for _ in range(3):
        with contextlib.suppress(ValueError), turns.taken(call(limit_s=0.01), "a turn"):
            raise ValueError
