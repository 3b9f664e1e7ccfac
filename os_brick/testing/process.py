# SPDX-License-Identifier: Apache-2.0
"""One run of a program: its words, its time limit, its answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from os_brick.testing.world import World


@dataclass(frozen=True)
class Answer:
    """How a program ended."""

    code: int = 0
    out: str = ""
    err: str = ""


class TimeIsUpError(Exception):
    """The program was stopped at its time limit."""


class Process:
    """A running program. It acts on the host while it holds the host's lock, and lets go of it to
    wait."""

    def __init__(self, world: World, words: tuple[str, ...], stdin: str, limit_s: float) -> None:
        self.words = words
        self.stdin = stdin
        self._world = world
        self._end = world.clock.now() + limit_s

    @property
    def left_s(self) -> float:
        """Virtual seconds until it is stopped."""
        return max(0.0, self._end - self._world.clock.now())

    def spend(self, seconds: float) -> None:
        """Take some time.

        :raises TimeIsUpError: if the limit came first.
        """
        left = self.left_s
        self._world.spend(min(seconds, left))
        if seconds > left:
            raise TimeIsUpError

    def wait_for(self, probe: Callable[[], bool]) -> None:
        """Wait until the host's state answers true.

        :raises TimeIsUpError: if the limit came first.
        """
        if not self._world.wait_for(probe, self.left_s):
            raise TimeIsUpError

    def unlocked_spend(self, seconds: float) -> None:
        """Take some time while acting: others may change the host meanwhile."""
        with self._unlocked():
            self.spend(seconds)

    def unlocked_wait(self, probe: Callable[[], bool]) -> None:
        """Wait for the host's state while acting."""
        with self._unlocked():
            self.wait_for(probe)

    def _unlocked(self) -> _Unlocked:
        return _Unlocked(self._world)


class _Unlocked:
    """Lets go of the host's lock (held once) for a block."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __enter__(self) -> None:
        self._world.lock.release()

    def __exit__(self, *exc: object) -> None:
        self._world.lock.acquire()
