# SPDX-License-Identifier: Apache-2.0
"""One public call: its deadline, its waiting, its timeline, and tasks side by side."""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from collections.abc import Callable

import pytest
from oslo_context import context

from os_brick import exception
from os_brick.initiator.linux.call import Call, SystemClock, public_call


class StepClock:
    """A clock that only moves when somebody waits for it."""

    def __init__(self) -> None:
        self.time = 100.0
        self.waits: list[float] = []
        self.happenings: dict[int, Callable[[], object]] = {}

    def now(self) -> float:
        return self.time

    def wait(self, seconds: float, event: threading.Event | None = None) -> None:
        self.waits.append(seconds)
        self.happenings.get(len(self.waits), lambda: None)()
        if event is None or not event.is_set():
            self.time += seconds


@pytest.fixture
def clock() -> StepClock:
    return StepClock()


@pytest.fixture
def call(clock: StepClock) -> Call:
    return Call("test", clock, 60)


# -- deadline --------------------------------------------------------------------------------------
def test_what_remains_is_never_below_zero(call: Call, clock: StepClock) -> None:
    assert call.remaining_s() == 60
    clock.time += 45
    assert (call.elapsed_s(), call.remaining_s()) == (45, 15)
    assert (call.within(300), call.within(5)) == (15, 5)
    clock.time += 45
    assert (call.remaining_s(), call.within(5)) == (0, 0)


def test_nothing_new_begins_after_the_deadline(call: Call, clock: StepClock) -> None:
    call.check("log in")
    clock.time += 60
    with pytest.raises(exception.DeadlineExceeded, match="within 60 seconds: log in"):
        call.check("log in")


def test_work_that_goes_on_has_a_deadline_of_its_own(call: Call, clock: StepClock) -> None:
    clock.time += 59
    later = call.later("rest", 30)
    clock.time += 20
    assert (call.remaining_s(), later.remaining_s()) == (0, 10)


# -- waiting ---------------------------------------------------------------------------------------
def test_what_is_there_is_not_waited_for(call: Call, clock: StepClock) -> None:
    assert call.wait_until(lambda: "sda", what="disk") == "sda"
    assert clock.waits == []


def test_looks_come_at_growing_intervals(call: Call, clock: StepClock) -> None:
    answers = iter([None] * 20 + ["sda"])
    assert call.wait_until(lambda: next(answers), what="disk") == "sda"
    assert len(clock.waits) == 20
    assert clock.waits == sorted(clock.waits)
    assert clock.waits[0] < 0.01
    assert clock.waits[-1] < 1


def test_waiting_ends_at_its_limit_with_the_last_answer(call: Call, clock: StepClock) -> None:
    assert call.wait_until(lambda: "", what="disk", limit_s=7) == ""
    assert clock.time == pytest.approx(107)


def test_waiting_ends_with_the_call_whatever_its_limit(call: Call, clock: StepClock) -> None:
    assert call.wait_until(lambda: None, what="disk", limit_s=3600) is None
    assert clock.time == pytest.approx(160)
    call.pause(10)
    assert clock.time == pytest.approx(160)


def test_a_limit_of_nothing_still_looks_once(call: Call, clock: StepClock) -> None:
    assert call.wait_until(lambda: "sda", what="disk", limit_s=0) == "sda"
    clock.time += 60
    assert call.wait_until(lambda: "sda", what="disk") == "sda"


def test_what_comes_at_the_last_moment_is_seen(call: Call, clock: StepClock) -> None:
    assert call.wait_until(lambda: clock.time >= 105, what="disk", limit_s=5) is True


def test_news_wake_the_waiter_and_none_are_missed(call: Call, clock: StepClock) -> None:
    news = threading.Event()
    seen: list[float] = []

    def probe() -> bool:
        seen.append(clock.time)
        if len(seen) == 1:
            news.set()  # between the look and the wait
        return len(seen) == 2

    assert call.wait_until(probe, what="disk", event=news)
    assert seen == [100.0, 100.0]


def test_a_pause_is_cut_at_the_deadline(call: Call, clock: StepClock) -> None:
    clock.time += 58
    call.pause(10)
    assert clock.waits == [2]


def test_an_error_of_the_probe_is_not_swallowed(call: Call) -> None:
    def probe() -> bool:
        raise PermissionError

    with pytest.raises(PermissionError):
        call.wait_until(probe, what="disk")


# -- timeline --------------------------------------------------------------------------------------
def test_a_timeline_says_what_was_done_and_how_long_it_took(call: Call, clock: StepClock) -> None:
    with call.step("log in") as step:
        clock.time += 2
        step.outcome = "exit 0"
    with call.step("wait for the map") as step:
        clock.time += 1
        step.waited_for = "sda"
    assert str(call.timeline) == (
        "0.000 log in (2.000s, exit 0); 2.000 wait for the map (1.000s, waited for sda)"
    )


def test_a_step_that_fails_says_so(call: Call) -> None:
    with pytest.raises(PermissionError), call.step("look"):
        raise PermissionError
    assert "look (0.000s, failed: PermissionError)" in str(call.timeline)


def test_a_step_that_has_not_ended_says_so(call: Call) -> None:
    with call.step("delete"):
        assert str(call.timeline) == "0.000 delete (unfinished)"


def test_quiet_steps_are_told_only_if_they_took_time_or_failed(
    call: Call, clock: StepClock
) -> None:
    with call.step("free lock", quiet=True):
        pass
    with call.step("held lock", quiet=True):
        clock.time += 1
    with pytest.raises(PermissionError), call.step("broken lock", quiet=True):
        raise PermissionError
    assert [step.name for step in call.timeline.steps] == ["held lock", "broken lock"]


def test_a_public_call_ends_with_one_line(
    clock: StepClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with public_call("attach of LUN 1", clock, 60) as call, call.step("log in"):
        clock.time += 3
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage() == "attach of LUN 1 took 3.000s: 0.000 log in (3.000s)"


def test_an_error_that_leaves_carries_the_timeline(
    clock: StepClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with (
        pytest.raises(exception.VolumeDeviceNotFound) as error,
        public_call("attach of LUN 1", clock, 60) as call,
        call.step("log in"),
    ):
        raise exception.VolumeDeviceNotFound(device="LUN 1")
    assert error.value.timeline is call.timeline
    assert "failed after 0.000s: VolumeDeviceNotFound: 0.000 log in" in caplog.text


# -- side by side ----------------------------------------------------------------------------------
@pytest.fixture
def real_call() -> Call:
    return Call("test", SystemClock(), 60)


def test_tasks_run_at_the_same_time(real_call: Call) -> None:
    everybody = threading.Barrier(5, timeout=50)
    tasks = {str(number): everybody.wait for number in range(5)}
    outcomes = real_call.each(tasks, what="all")
    assert [outcome.error for outcome in outcomes.values()] == [None] * 5
    assert list(outcomes) == list(tasks)


def test_how_each_ended_is_told_by_name(real_call: Call) -> None:
    failure = OSError("no")

    def fail() -> str:
        raise failure

    outcomes = real_call.each({"good": lambda: "value", "bad": fail}, what="both")
    assert (outcomes["good"].value, outcomes["good"].error) == ("value", None)
    assert (outcomes["bad"].value, outcomes["bad"].error) == (None, failure)


def test_a_single_task_needs_no_thread(real_call: Call) -> None:
    outcomes = real_call.each({"one": threading.get_ident}, what="one")
    assert outcomes["one"].value == threading.get_ident()


def test_no_task_is_no_outcome(real_call: Call) -> None:
    assert real_call.each({}, what="nothing") == {}


def test_a_task_that_never_ends_does_not_keep_the_caller() -> None:
    for_ever = threading.Event()
    before = set(threading.enumerate())
    call = Call("test", SystemClock(), 0.2)
    try:
        outcomes = call.each({"stuck": for_ever.wait, "quick": lambda: True}, what="both")
        assert isinstance(outcomes["stuck"].error, exception.DeadlineExceeded)
        assert outcomes["quick"].value is True
        (stuck,) = set(threading.enumerate()) - before
        assert stuck.daemon, "it must be a thread that keeps no process from ending"
    finally:
        for_ever.set()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_task_that_is_told_to_stop_has_ended(real_call: Call, kind: type[BaseException]) -> None:
    def stop() -> None:
        raise kind

    outcomes = real_call.each({"stops": stop, "quick": lambda: None}, what="both")
    assert isinstance(outcomes["stops"].error, Exception)
    assert not isinstance(outcomes["stops"].error, exception.DeadlineExceeded)
    assert isinstance(outcomes["stops"].error.__cause__, kind)


def test_what_runs_and_what_has_ended_can_be_asked_meanwhile(real_call: Call) -> None:
    go_on = threading.Event()
    tasks: dict[str, Callable[[], object]] = {"slow": go_on.wait, "quick": lambda: "done"}
    running = real_call.side_by_side(tasks)
    real_call.wait_until(running.ended, what="the quick one", event=running.news)
    assert running.running() == ["slow"]
    assert [outcome.value for outcome in running.ended().values()] == ["done"]
    assert not running.all_ended()
    go_on.set()
    assert real_call.wait_until(running.all_ended, what="both", event=running.news)


def test_tasks_run_under_the_request_of_their_caller(real_call: Call) -> None:
    def caller() -> list[bool]:
        request = context.RequestContext(request_id="req-1")
        tasks = dict.fromkeys(("one", "two"), context.get_current)
        outcomes = real_call.each(tasks, what="both")
        return [outcome.value is request for outcome in outcomes.values()]

    # In a thread of its own, whose request ends with it.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        assert pool.submit(caller).result(50) == [True, True]
