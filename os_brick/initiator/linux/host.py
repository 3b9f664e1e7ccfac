# SPDX-License-Identifier: Apache-2.0
"""The doors through which the library meets the host; a test replaces them whole."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from os_brick import exception, opts
from os_brick.initiator.linux.call import Call, Clock, SystemClock
from os_brick.initiator.linux.changes import Changes, PrivilegedChanges, ProgramChanges
from os_brick.initiator.linux.locking import Locks
from os_brick.initiator.linux.network import Network, SystemNetwork
from os_brick.initiator.linux.nvme_changes import NvmeChanges, PrivilegedNvme, ProgramNvme
from os_brick.initiator.linux.programs import Execute, Programs
from os_brick.initiator.linux.sysfs import Tree

# iscsid and targets serve logins one after the other; more at once only make each slower.
_LOGINS_AT_ONCE = 16
# iscsiadm's node database has one lock, which it polls for: a crowd of programs at it keeps the
# host busy and every log-in waiting for its last. A turn is for one program: with a turn for all
# that a record needs, the first disks keep udev busy while the last records are still made, and
# sixteen attaches took half as long again.
_RECORDS_AT_ONCE = 4
# A target that takes longer keeps nobody busy but itself: its turn is another's then.
_LOGIN_TURN_S = 10.0


class _Turn:
    """One caller's place in the queue."""

    __slots__ = ("given", "given_s", "news", "over")

    def __init__(self) -> None:
        self.given = False
        self.given_s = 0.0
        self.over = False
        self.news = threading.Event()


class Turns:
    """How many of a kind may run at once; who came first is served first.

    :param longest_s: after so long one that runs still does not count any more.
    """

    def __init__(self, at_once: int, longest_s: float | None = None) -> None:
        self._lock = threading.Lock()
        self._free = at_once
        self._longest_s = longest_s
        self._running: set[_Turn] = set()
        self._queue: collections.deque[_Turn] = collections.deque()

    @contextlib.contextmanager
    def taken(self, call: Call, what: str) -> Iterator[None]:
        """Hold a turn; wait for one.

        :param what: what is waited for.
        :raises DeadlineExceeded: there was none until the call's time was over.
        """
        turn = _Turn()
        with self._lock:
            self._queue.append(turn)
            self._serve(call)
        try:
            # Told, not looked for: a crowd that looks again and again keeps those from running
            # that it waits for.
            while not call.wait_until(
                lambda: turn.given,
                what=what,
                event=turn.news,
                told=True,
                limit_s=self._longest_s,
            ):
                if call.remaining_s() <= 0:
                    raise exception.DeadlineExceeded(what=what, seconds=call.limit_s)
                with self._lock:
                    self._serve(call)
            yield
        finally:
            with self._lock:
                if not turn.given:
                    self._queue.remove(turn)
                else:
                    self._end(turn)
                self._serve(call)

    def _end(self, turn: _Turn) -> None:
        if not turn.over:
            turn.over = True
            self._running.discard(turn)
            self._free += 1

    def _serve(self, call: Call) -> None:
        """Give the free turns to those who have waited longest. The caller holds the lock."""
        now = call.clock.now()
        if self._longest_s is not None:
            for turn in [one for one in self._running if now - one.given_s >= self._longest_s]:
                self._end(turn)
        while self._free and self._queue:
            turn = self._queue.popleft()
            self._free -= 1
            turn.given, turn.given_s = True, now
            self._running.add(turn)
            turn.news.set()


@dataclass(frozen=True)
class Crowds:
    """What may not run in any number at once."""

    logins: Turns = field(default_factory=lambda: Turns(_LOGINS_AT_ONCE, _LOGIN_TURN_S))
    records: Turns = field(default_factory=lambda: Turns(_RECORDS_AT_ONCE))


# Services make a connector, and so a Host, for each operation; the machine is one.
_OF_THIS_MACHINE = Crowds()


def _sysfs() -> Tree:
    return Tree("/sys", reads_pages=True)


@dataclass(frozen=True)
class Host:
    """One host: its files, programs, privileged changes, time, locks and network.

    It holds nothing about any volume and is shared by all calls of a connector.
    """

    programs: Programs
    changes: Changes
    sysfs: Tree = field(default_factory=_sysfs)
    proc: Tree = field(default_factory=lambda: Tree("/proc"))
    dev: Tree = field(default_factory=lambda: Tree("/dev"))
    run: Tree = field(default_factory=lambda: Tree("/run"))
    etc: Tree = field(default_factory=lambda: Tree("/etc"))
    clock: Clock = field(default_factory=SystemClock)
    locks: Locks = field(default_factory=lambda: Locks(opts.get_lock_path))
    network: Network = field(default_factory=SystemNetwork)
    crowds: Crowds = field(default_factory=Crowds)
    nvme: NvmeChanges = field(default_factory=PrivilegedNvme)

    @classmethod
    def of_execute(cls, execute: Execute, root_helper: str | None, *, foreign: bool) -> Host:
        """Return this machine.

        :param execute: runs every program.
        :param foreign: the function was supplied by the service, so that every change of the host
            has to go through it; otherwise the library's privileged verbs make them.
        """
        programs = Programs(execute, root_helper)
        sysfs = _sysfs()
        changes: Changes = ProgramChanges(programs, sysfs) if foreign else PrivilegedChanges()
        nvme: NvmeChanges = ProgramNvme(programs, sysfs) if foreign else PrivilegedNvme()
        return cls(
            programs=programs, changes=changes, sysfs=sysfs, crowds=_OF_THIS_MACHINE, nvme=nvme
        )

    def with_execute(self, execute: Execute, root_helper: str | None) -> Host:
        """Return this host with programs, and all changes, run by an execute function of the
        service."""
        programs = Programs(execute, root_helper)
        changes = ProgramChanges(programs, self.sysfs)
        nvme = ProgramNvme(programs, self.sysfs)
        return dataclasses.replace(self, programs=programs, changes=changes, nvme=nvme)
