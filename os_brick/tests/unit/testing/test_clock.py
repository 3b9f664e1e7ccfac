# SPDX-License-Identifier: Apache-2.0
"""Virtual time: it passes only while everybody waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from os_brick.testing.clock import VirtualClock


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    one = VirtualClock()
    yield one
    one.close()


def run_all(*tasks: Callable[[], object]) -> None:
    threads = [threading.Thread(target=task, daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def test_a_wait_takes_virtual_time_only(clock: VirtualClock) -> None:
    clock.wait(3600)
    assert clock.now() == 3600


def test_waiting_for_nothing_returns_at_once(clock: VirtualClock) -> None:
    done = threading.Event()
    done.set()
    clock.wait(0)
    clock.wait(-1)
    clock.wait(60, done)
    assert clock.now() == 0


def test_happenings_come_in_their_order_and_before_who_waits_for_their_time(
    clock: VirtualClock,
) -> None:
    seen: list[tuple[str, float]] = []
    clock.at(5, lambda: seen.append(("late", clock.now())))
    clock.at(2, lambda: seen.append(("first", clock.now())))
    clock.at(2, lambda: seen.append(("second", clock.now())))
    clock.wait(2)
    assert seen == [("first", 2), ("second", 2)]
    clock.wait(3)
    assert seen[-1] == ("late", 5)


def test_a_happening_may_cause_another(clock: VirtualClock) -> None:
    seen: list[float] = []
    clock.at(1, lambda: clock.after(1, lambda: seen.append(clock.now())))
    clock.wait(10)
    assert seen == [2]


def test_a_happening_can_be_taken_back(clock: VirtualClock) -> None:
    seen: list[str] = []
    take_back = clock.at(1, lambda: seen.append("no"))
    take_back()
    clock.wait(2)
    assert seen == []


def test_a_failing_happening_is_kept_for_the_test(clock: VirtualClock) -> None:
    clock.at(1, lambda: 1 // 0)
    clock.wait(2)
    assert [type(error) for error in clock.errors] == [ZeroDivisionError]


def test_an_event_wakes_its_waiter_at_the_time_it_is_set(clock: VirtualClock) -> None:
    news = threading.Event()
    woken: list[float] = []

    def sleeper() -> None:
        clock.wait(1000, news)
        woken.append(clock.now())

    def teller() -> None:
        clock.wait(7)
        news.set()

    run_all(sleeper, teller)
    assert woken == [7]


def test_working_threads_lose_no_time_to_twenty_others(clock: VirtualClock) -> None:
    took: list[float] = []

    def worker() -> None:
        began = clock.now()
        for _ in range(30):
            sum(range(10_000))  # real work, during which virtual time must stand still
            clock.wait(0.5)
        took.append(clock.now() - began)

    run_all(*[worker] * 20)
    assert took == [pytest.approx(15)] * 20


def test_time_goes_on_though_a_thread_waits_for_something_else(clock: VirtualClock) -> None:
    lock = threading.Lock()
    order: list[str] = []

    def holder() -> None:
        with lock:
            clock.wait(60)
            order.append("holder")

    def other() -> None:
        clock.wait(1)
        with lock:
            order.append("other")

    run_all(holder, other)
    assert order == ["holder", "other"]


def test_who_still_waits_when_the_clock_ends_is_told(clock: VirtualClock) -> None:
    clock.at(5, clock.close)
    with pytest.raises(RuntimeError):
        clock.wait(10)
    assert clock.now() == 5
    with pytest.raises(RuntimeError):
        clock.wait(1)
