# SPDX-License-Identifier: Apache-2.0
"""Time that passes only when everybody waits for it.

A :class:`VirtualClock` stands in for :class:`os_brick.initiator.linux.call.SystemClock`. Hours of
it pass in milliseconds of real time, yet a thread that works never loses any of it: virtual time
stands still until all threads wait, then it jumps to what comes first: somebody's wake-up or a
happening (:meth:`VirtualClock.at`).

Whether everybody waits is known exactly if all threads of the process wait here. Otherwise (a test
joins its threads, a thread waits for a lock) it is found by watching: by ``/proc`` no thread is
running or runnable, and none has run since the look before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import heapq
import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterator

LOG = logging.getLogger(__name__)

_LOOK_S = 0.0005
# A wait that nothing can end (no happening, no timeout) is a test's mistake, told instead of hung
# on.
FOREVER_S = 10.0 * 365 * 86400


@dataclasses.dataclass(eq=False, slots=True)
class _Waiter:
    """One thread that waits."""

    thread: int
    until: float
    event: threading.Event | None
    released: threading.Lock


@dataclasses.dataclass(order=True, slots=True)
class _Happening:
    """One action at one time; the number keeps those of one time in the order they were asked
    for."""

    when: float
    number: int
    action: Callable[[], object] = dataclasses.field(compare=False)


class VirtualClock:
    """A discrete-event clock for any number of threads.

    Times are seconds since the clock was made. Happenings run in the thread that moves time on, one
    after the other, while all others wait; they must not wait themselves.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._lock = threading.Lock()
        self._waiters: set[_Waiter] = set()
        self._idle: dict[int, tuple[threading.Thread, ...]] = {}
        self._happenings: list[_Happening] = []
        self._numbers = itertools.count()
        self._moving = False
        self._generation = 0  # changes whenever somebody comes or goes
        self._somebody_waits = threading.Event()
        self._pump: threading.Thread | None = None
        self._closed = False
        #: Exceptions of happenings, in the order they were raised.
        self.errors: list[BaseException] = []

    # -- the door: os_brick.initiator.linux.call.Clock -------------------------------------
    def now(self) -> float:
        """Return the virtual seconds since this clock was made."""
        return self._now

    def wait(self, seconds: float, event: threading.Event | None = None) -> None:
        """Return when ``seconds`` of virtual time have passed, or sooner when ``event`` is set."""
        if seconds <= 0 or (event is not None and event.is_set()):
            return
        waiter = _Waiter(threading.get_ident(), self._now + seconds, event, threading.Lock())
        waiter.released.acquire()
        with self._lock:
            if self._closed:
                raise RuntimeError("this host's clock was closed while a thread still waited")
            self._waiters.add(waiter)
            self._generation += 1
            self._start_pump()
        if not self._somebody_waits.is_set():
            self._somebody_waits.set()
        self._move_on_if_all_wait()
        waiter.released.acquire()
        if self._closed:
            raise RuntimeError("this host's clock was closed while a thread still waited")

    # -- for the model and for tests -------------------------------------------------------
    def at(self, when: float, action: Callable[[], object]) -> Callable[[], None]:
        """Have an action happen at a virtual time (at once in its turn if that is over).

        :returns: a function that takes it back, if it has not happened yet.
        """
        happening = _Happening(max(when, self._now), next(self._numbers), action)
        with self._lock:
            heapq.heappush(self._happenings, happening)

        def take_back() -> None:
            with self._lock, contextlib.suppress(ValueError):
                self._happenings.remove(happening)
                heapq.heapify(self._happenings)

        return take_back

    def after(self, seconds: float, action: Callable[[], object]) -> Callable[[], None]:
        """Have an action happen ``seconds`` from now; with no seconds it happens here and now."""
        if seconds <= 0:
            action()
            return lambda: None
        return self.at(self._now + seconds, action)

    def wait_until(
        self, probe: Callable[[], bool], limit_s: float, changed: threading.Event
    ) -> bool:
        """Look whenever ``changed`` is set until the probe's answer is true, at most
        ``limit_s``."""
        end = self._now + limit_s
        while True:
            changed.clear()
            if probe():
                return True
            left = end - self._now
            if left <= 0:
                return False
            self.wait(left, changed)

    @contextlib.contextmanager
    def idle(self, *threads: threading.Thread) -> Iterator[None]:
        """Say that this thread only waits for others (joins them) in the block.

        Nothing breaks without, but who waits is known at once then instead of by watching.

        :param threads: the started threads that it waits for: once all of them have ended, it has
            work again. Without any it counts as waiting until the block ends.
        """
        here = threading.get_ident()
        with self._lock:
            self._idle[here] = threads
        try:
            self._move_on_if_all_wait()
            yield
        finally:
            with self._lock:
                del self._idle[here]

    def pass_time(self, seconds: float) -> None:
        """Let time pass, for a test that only wants to see what happens."""
        self.wait(seconds)

    def close(self) -> None:
        """End the clock: a thread that still waits gets a RuntimeError, later ones too."""
        with self._lock:
            self._closed = True
            self._release(list(self._waiters))
        self._somebody_waits.set()
        if self._pump is not None and self._pump is not threading.current_thread():
            self._pump.join(5)

    # -- moving on -------------------------------------------------------------------------
    def _start_pump(self) -> None:
        if self._pump is None:
            self._pump = _Pump(target=self._watch, name="virtual-clock", daemon=True)
            self._pump.start()

    def _release(self, waiters: list[_Waiter]) -> None:
        self._generation += bool(waiters)
        for waiter in waiters:
            self._waiters.discard(waiter)
            waiter.released.release()

    def _wake_signalled(self) -> bool:
        """Release those whose event was set; tell whether there were any."""
        with self._lock:
            signalled = [
                one for one in self._waiters if one.event is not None and one.event.is_set()
            ]
            self._release(signalled)
        return bool(signalled)

    def _all_wait(self) -> bool:
        """Tell whether every thread of the process waits here (needs the lock)."""
        present = threading.enumerate()
        waiting = {waiter.thread for waiter in self._waiters}
        for ident, threads in self._idle.items():
            if not threads or any(thread in present for thread in threads):
                waiting.add(ident)
        return all(one.ident in waiting or isinstance(one, _Pump) for one in present)

    def _move_on_if_all_wait(self) -> None:
        while not self._wake_signalled():
            if not self._move_on(self._all_wait):
                return

    def _move_on(self, everybody_waits: Callable[[], bool]) -> bool:
        """Jump to what comes first; True if it was a happening, so that there may be more to do."""
        with self._lock:
            if self._moving or not self._waiters or not everybody_waits():
                return False
            happening, first = None, min(waiter.until for waiter in self._waiters)
            if self._happenings and self._happenings[0].when <= first:
                happening = heapq.heappop(self._happenings)
                first = happening.when
            self._now = max(self._now, first)
            if happening is None:
                self._release([one for one in self._waiters if one.until <= self._now])
                return False
            self._moving = True
            self._generation += 1
        try:
            happening.action()
        except Exception as exc:
            LOG.error("A happening at %.3fs failed", self._now, exc_info=exc)
            self.errors.append(exc)
        finally:
            self._moving = False
        return True

    # -- watching --------------------------------------------------------------------------
    def _watch(self) -> None:
        """Move time on whenever nobody has anything left to do in real time."""
        generation, seen = -1, None
        pause = threading.Lock()
        pause.acquire()
        while not self._closed:
            if not self._waiters:
                self._somebody_waits.wait()
                self._somebody_waits.clear()
            pause.acquire(timeout=_LOOK_S)
            if self._wake_signalled() or generation != self._generation:
                generation, seen = self._generation, None  # time moves on without this thread
                continue
            before, seen = seen, _standstill()
            if seen is not None and seen == before:
                self._move_on(functools.partial(self._is_unchanged_since, generation))

    def _is_unchanged_since(self, generation: int) -> bool:
        return generation == self._generation


class _Pump(threading.Thread):
    """The thread of a clock that watches the others."""


def _standstill() -> dict[str, bytes] | None:
    """Return how often each other thread of this process was taken off a processor so far.

    A thread whose count is the same at two looks has not run between them. To look at its state
    alone would not do: one that wants the interpreter's lock, which this thread has as it looks,
    seems to sleep.

    :returns: None if one runs, wants to run, or waits for a disk.
    """
    here = str(threading.get_native_id())
    switches = {}
    for thread in os.listdir("/proc/self/task"):
        if thread == here:
            continue
        try:
            with open(f"/proc/self/task/{thread}/status", "rb", buffering=0) as file:
                status = file.read()
        except OSError:
            continue  # it has ended meanwhile
        if status.partition(b"\nState:\t")[2][:1] in (b"R", b"D"):
            return None
        switches[thread] = status.partition(b"\nvoluntary_ctxt_switches:")[2]
    return switches
