# SPDX-License-Identifier: Apache-2.0
"""One public call: its deadline, its waiting and its timeline.

A :class:`Call` is made when a service calls the library and is passed down by name. It is the only
thing in the library that waits, so that every wait ends with the call, and a test can put its own
clock in.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from oslo_log import log as logging

from os_brick import exception, executor

LOG = logging.getLogger(__name__)
T = TypeVar("T")

_FIRST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.25
_GROWTH = 1.6
_PAUSE_PER_LOOK = 10.0
_LONGEST_CONSIDERATE_PAUSE_S = 0.5
# Shorter steps marked quiet (a lock that was free) would only make the timeline harder to read.
_QUIET_S = 0.01


class Clock(Protocol):
    """Time, as the library sees it."""

    def now(self) -> float:
        """Return seconds that only grow."""

    def wait(self, seconds: float, event: threading.Event | None = None) -> None:
        """Return after ``seconds``, or sooner when ``event`` is set."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        return time.monotonic()

    def wait(self, seconds: float, event: threading.Event | None = None) -> None:
        if event is None:
            time.sleep(seconds)
        else:
            event.wait(seconds)


@dataclass(slots=True)
class Step:
    """One line of a timeline; all times in seconds since the call began."""

    name: str
    began_s: float
    took_s: float | None = None
    waited_for: str = ""
    outcome: str = ""
    programs: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        took = "unfinished" if self.took_s is None else f"{self.took_s:.3f}s"
        facts = [took]
        if self.waited_for:
            facts.append(f"waited for {self.waited_for}")
        facts.extend(self.programs)
        if self.outcome:
            facts.append(self.outcome)
        return f"{self.began_s:.3f} {self.name} ({', '.join(facts)})"


class Timeline:
    """What one public call did, in the order in which it began. Holds no secret: only names and
    codes."""

    def __init__(self, operation: str) -> None:
        self.operation = operation
        self.steps: list[Step] = []

    def __str__(self) -> str:
        return "; ".join(str(step) for step in list(self.steps))


class Call:
    """The deadline, the waiting and the timeline of one public call.

    :param operation: what is being done, for logs ("attach of LUN 1 …").
    :param clock: the source of time.
    :param limit_s: seconds after which the call must have ended.
    """

    def __init__(self, operation: str, clock: Clock, limit_s: float) -> None:
        self.operation = operation
        self.clock = clock
        self.limit_s = limit_s
        self.timeline = Timeline(operation)
        self._began = clock.now()

    # -- time ---------------------------------------------------------------------------------
    def elapsed_s(self) -> float:
        """Return the seconds since the call began."""
        return self.clock.now() - self._began

    def remaining_s(self) -> float:
        """Return the seconds until the deadline, never below zero."""
        return max(0.0, self.limit_s - self.elapsed_s())

    def within(self, limit_s: float) -> float:
        """Return ``limit_s``, cut to what remains of the call."""
        return min(limit_s, self.remaining_s())

    def check(self, what: str) -> None:
        """Raise :class:`DeadlineExceeded` if the call's time is over; ``what`` was to be
        done next."""
        if self.remaining_s() <= 0:
            raise exception.DeadlineExceeded(what=what, seconds=self.limit_s)

    def wait_until(
        self,
        probe: Callable[[], T],
        *,
        what: str,
        limit_s: float | None = None,
        event: threading.Event | None = None,
        told: bool = False,
    ) -> T:
        """Look at once, then at growing intervals, until the probe's answer is true.

        :param probe: reads the host; it must start no program and must not block.
        :param what: what is waited for.
        :param limit_s: give up after so many seconds (the call's deadline counts in any case).
        :param event: wakes the waiter early, for example when a thread has news.
        :param told: the event is set whenever the answer may change, so that there is nothing to
            look for in between.
        :returns: the probe's last answer, which is false when time ran out.
        """
        end = self.clock.now() + self.within(self.limit_s if limit_s is None else limit_s)
        pause = _FIRST_PAUSE_S
        while True:
            if event is not None:
                event.clear()
            asked = self.clock.now()
            answer = probe()
            now = self.clock.now()
            left = end - now
            if answer or left <= 0:
                return answer
            # Many calls that wait side by side on a slow or busy machine must not keep each other
            # (and what they wait for) from running: a costly look is repeated less often.
            considerate = min((now - asked) * _PAUSE_PER_LOOK, _LONGEST_CONSIDERATE_PAUSE_S)
            self.clock.wait(left if told else min(max(pause, considerate), left), event)
            pause = min(pause * _GROWTH, _LONGEST_PAUSE_S)

    def pause(self, seconds: float) -> None:
        """Wait for ``seconds``, or until the deadline if that is sooner."""
        left = self.within(seconds)
        if left > 0:
            self.clock.wait(left)

    # -- timeline -----------------------------------------------------------------------------
    @contextlib.contextmanager
    def step(self, name: str, *, quiet: bool = False) -> Iterator[Step]:
        """Enter a step into the timeline; ``quiet`` ones only if they took noticeable time or
        failed."""
        step = Step(name, self.elapsed_s())
        if not quiet:
            self.timeline.steps.append(step)
        failed = True
        try:
            yield step
            failed = False
        except BaseException as exc:
            step.outcome = step.outcome or f"failed: {type(exc).__name__}"
            raise
        finally:
            step.took_s = self.elapsed_s() - step.began_s
            if quiet and (failed or step.took_s >= _QUIET_S):
                self.timeline.steps.append(step)

    def later(self, operation: str, limit_s: float) -> Call:
        """Return a call of its own for work that may go on after this one has returned.

        Its steps are entered into this one's timeline, for as long as somebody looks at it.
        """
        later = Call(operation, self.clock, self.elapsed_s() + limit_s)
        later._began = self._began
        later.timeline = self.timeline
        return later

    # -- side by side -------------------------------------------------------------------------
    def side_by_side(self, tasks: Mapping[str, Callable[[], T]]) -> SideBySide[T]:
        """Start each task in a thread of its own and return at once."""
        return SideBySide(self, tasks)

    def each(self, tasks: Mapping[str, Callable[[], T]], what: str) -> dict[str, Outcome[T]]:
        """Run tasks side by side and return how each ended, in their order.

        A task that outlives the deadline is left to itself and counts as failed with
        :class:`DeadlineExceeded`. A single task runs in the caller's thread.
        """
        if len(tasks) == 1:
            return {name: Outcome.of(task) for name, task in tasks.items()}
        running = self.side_by_side(tasks)
        self.wait_until(running.all_ended, what=what, event=running.news, told=True)
        return running.outcomes()


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """How a task ended: with a value or with an error."""

    value: T | None = None
    error: Exception | None = None

    @staticmethod
    def of(task: Callable[[], T]) -> Outcome[T]:
        """Run a task here and keep how it ended."""
        try:
            return Outcome(value=task())
        except Exception as exc:  # noqa: BLE001 - one task's failure must not stop the others; the caller decides
            return Outcome(error=exc)


class SideBySide(Generic[T]):
    """Tasks in threads of their own, which carry the request context and never die silently.

    The threads are daemons: a task stuck in the kernel keeps neither the caller nor the process.
    """

    def __init__(self, call: Call, tasks: Mapping[str, Callable[[], T]]) -> None:
        self._call = call
        self._names = list(tasks)
        self._ended: dict[str, Outcome[T]] = {}
        self.news = threading.Event()
        for name, task in tasks.items():
            thread = executor.Thread(target=self._run, args=(name, task), daemon=True)
            try:
                thread.start()
            except RuntimeError as exc:  # no more threads to be had: this task has failed
                self._ended[name] = Outcome(error=exc)

    def _run(self, name: str, task: Callable[[], T]) -> None:
        try:
            self._ended[name] = Outcome.of(task)
        except BaseException as exc:  # noqa: BLE001 - told to stop, a thread must not end unseen
            stopped = RuntimeError(f"{name} was stopped: {type(exc).__name__}")
            stopped.__cause__ = exc
            self._ended[name] = Outcome(error=stopped)
        finally:
            self.news.set()

    def all_ended(self) -> bool:
        """Tell whether every task has ended."""
        return len(self._ended) == len(self._names)

    def ended(self) -> dict[str, Outcome[T]]:
        """Return how those ended that have, in the tasks' order."""
        return {name: self._ended[name] for name in self._names if name in self._ended}

    def running(self) -> list[str]:
        """Return the names of the tasks that have not ended."""
        return [name for name in self._names if name not in self._ended]

    def outcomes(self) -> dict[str, Outcome[T]]:
        """Return how all ended; one still running counts as failed at the deadline."""
        late = exception.DeadlineExceeded
        return {
            name: self._ended.get(name)
            or Outcome(error=late(what=name, seconds=self._call.limit_s))
            for name in self._names
        }


@contextlib.contextmanager
def public_call(operation: str, clock: Clock, limit_s: float) -> Iterator[Call]:
    """Make the :class:`Call` of a public call, and tell its timeline when it ends.

    At the end one INFO line is logged; an exception that leaves carries the timeline as
    ``timeline``.
    """
    call = Call(operation, clock, limit_s)
    try:
        yield call
    except Exception as exc:
        exc.timeline = call.timeline  # type: ignore[attr-defined]
        LOG.info(
            "%s failed after %.3fs: %s: %s",
            operation,
            call.elapsed_s(),
            type(exc).__name__,
            call.timeline,
        )
        raise
    LOG.info("%s took %.3fs: %s", operation, call.elapsed_s(), call.timeline)
