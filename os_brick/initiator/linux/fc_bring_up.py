# SPDX-License-Identifier: Apache-2.0
"""Bringing up the paths of a Fibre Channel volume, side by side.

Each path comes up in a thread of its own, since a scan behind a port that is just lost blocks in
the kernel for as long as that tries to reach it. The thread has the path's lock until it has
settled what came of it: so an attach never takes a disk that a thread of an earlier one is about
to take away.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import fc, fc_paths, fc_turns, scsi_volume
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.fc_paths import FcPath, Ways
from os_brick.initiator.linux.fc_scan import Scanner
from os_brick.initiator.linux.fc_volume import FcVolume
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.scsi import Disk
from os_brick.initiator.linux.scsi_volume import Found

LOG = logging.getLogger(__name__)

_IN_HAND = "an earlier attach still waits for what the kernel shows there"

# What was scanned last gets so long to appear.
_LAST_LOOK_S = 2.0
# A scan that the kernel has not finished by then will hardly give anything.
_WATCH_S = 600.0
# A thread that has come to its end lets go of its path.
_MOMENT_S = 0.5
# As long as no path has given a disk, further ports that come are looked for so often.
_NEW_PORTS_S = 1.0
# Where nothing but paths that an earlier attach has in hand may give a disk, as long as a scan.
_TURN_S = 120.0


@dataclass
class PathState:
    """What is known of one path while it comes up; written by its thread, read by the attach."""

    path: FcPath
    waiting: bool = False
    """An earlier attach has not settled yet what comes by it. That may take long, so nobody waits
    for this path who has another."""
    scanned: bool = False
    blocked: bool = False
    """A scan has not come back from the kernel, which goes on with it."""
    ended: bool = False
    found: Found | None = None
    error: Exception | None = None


class BringUp:
    """The paths of one attempt to attach a volume.

    :param attempts: how often ports and LUNs that do not appear are looked for: at once, after 4 s,
        after 9 s more and so on.
    :param is_over: tells that no disk is wanted any more.
    :param when_ended: called in a path's thread when it has come up, or never will.
    :ivar first_ways: the ways to the volume before anything was done.
    :ivar news: set when something may have changed.
    """

    def __init__(
        self,
        host: Host,
        call: Call,
        volume: FcVolume,
        scanner: Scanner,
        attempts: int,
        *,
        is_over: Callable[[], bool],
        when_ended: Callable[[PathState], None],
    ) -> None:
        self._host = host
        self._call = call
        self._volume = volume
        self._scanner = scanner
        self._attempts = max(1, attempts)
        self._is_over = is_over
        self._when_ended = when_ended
        self._states: dict[FcPath, PathState] = {}
        self.first_ways = self.read_ways()
        self.news = threading.Event()

    def run(self) -> None:
        """Return when a path has given a disk, or as soon as it is clear that none will.

        Further paths may be under way then.
        """
        for number in range(1, self._attempts + 1):
            self._look_for_ports(self.first_ways if number == 1 else self.read_ways())
            last = number == self._attempts
            connected = self._call.wait_until(
                self._connected,
                what="connected ports of the volume",
                limit_s=_LAST_LOOK_S if last else float((number + 1) ** 2),
            )
            if connected:
                self._start(connected)
                self._wait_for_disk()
                return

    def _wait_for_disk(self) -> None:
        patience_end_s = self._call.elapsed_s() + _TURN_S
        look_s = self._call.elapsed_s() + _NEW_PORTS_S

        def is_clear() -> bool:
            nonlocal look_s
            if not self.disks() and self._call.elapsed_s() >= look_s:
                look_s = self._call.elapsed_s() + _NEW_PORTS_S
                self.start_new()
            waiting = any(state.waiting for state in self._states.values())
            in_vain = not waiting or self._call.elapsed_s() >= patience_end_s
            return bool(self.disks()) or (in_vain and not self.is_busy())

        self._call.wait_until(is_clear, what="disk of the LUN", event=self.news)

    def read_ways(self) -> Ways:
        """Return the ways to the volume as they are now; what cannot be read is left out."""
        hbas = fc.read_hbas(self._host.sysfs, strict=False)
        return fc_paths.read_ways(self._host.sysfs, hbas, self._volume, strict=False)

    def _look_for_ports(self, ways: Ways) -> None:
        self._scanner.look_for_ports(self._call, ways.hbas, self._volume, ways)

    def _connected(self) -> list[FcPath]:
        return [path for path in self.read_ways().meant if path.is_connected]

    def start_new(self) -> None:
        """Bring up each path that has been connected since the others were begun."""
        new = [path for path in self._connected() if path not in self._states]
        if new:
            self._start(new)

    def _start(self, connected: Iterable[FcPath]) -> None:
        """Bring up each path that is connected."""
        states = {path: PathState(path) for path in connected}
        # Threads look at them meanwhile, so they are replaced at once.
        self._states = {**self._states, **states}
        tasks = {path.lock_name: partial(self._work, one) for path, one in states.items()}
        ended = self._call.side_by_side(tasks).ended()
        for path, state in states.items():
            outcome = ended.get(path.lock_name)
            if outcome is not None and not state.ended:  # there was no thread to be had for it
                state.error, state.ended = outcome.error, True

    # -- what came of it ----------------------------------------------------------------------
    def disks(self) -> list[Disk]:
        """Return the disks that have appeared, in the order of the paths."""
        return [state.found.disk for state in self._states.values() if state.found is not None]

    def found(self) -> dict[Disk, FcPath]:
        """Return the disks that have appeared, each with its path."""
        states = self._states.values()
        return {state.found.disk: state.path for state in states if state.found is not None}

    def is_busy(self) -> bool:
        """Tell whether a path is under way, and not kept waiting by an earlier attach."""
        return not all(state.ended or state.waiting for state in self._states.values())

    def wait_for_all(self, call: Call, limit_s: float) -> None:
        """Return when no path is under way any more, or after so many seconds."""
        call.wait_until(
            lambda: not self.is_busy(), what="paths under way", limit_s=limit_s, event=self.news
        )

    def failures(self) -> list[tuple[object, Exception | None]]:
        """Return the ways that gave no disk, each with its reason; those not connected too."""
        told: dict[object, Exception | None] = {}
        ways = self.read_ways()
        for path in ways.meant:
            if path not in self._states and not path.is_connected:
                told[path] = exception.BrickException(path.trouble)
        for path, state in self._states.items():
            if state.found is None:
                told[path] = state.error or _unfinished(state)
        return [*told.items(), *self._unseen(ways)]

    def _unseen(self, ways: Ways) -> list[tuple[object, Exception | None]]:
        """Return the ways that initiator_target_map promises and that no port of this host sees."""
        if self._volume.zones is None:
            return []
        seen = {(path.hba.port_name, path.port.port_name) for path in ways.meant}
        reason = exception.BrickException("the port is not known here, check the zoning")
        return [
            (f"{target} by 0x{initiator}", reason)
            for initiator, targets in self._volume.zones
            for target in targets
            if (initiator, target.wwpn) not in seen
        ]

    # -- one path -----------------------------------------------------------------------------
    def _work(self, state: PathState) -> None:
        found: Found | None = None
        error: Exception | None = None
        with contextlib.ExitStack() as turn:
            try:
                call = self._take_turn(turn, state)
                with call.step(f"find {state.path}") as step:
                    found = self._find(call, state)
                    step.outcome = str(found.disk) if found else "not found"
            except Exception as exc:  # noqa: BLE001 - a path's thread must not die silently; the attach decides
                LOG.warning("No path by %s: %s", state.path, exc)
                error = exc
            state.found, state.error, state.ended = found, error, True
            self.news.set()
            if found is None and state.blocked:
                self._watch(state)
            self._when_ended(state)

    def _take_turn(self, turn: contextlib.ExitStack, state: PathState) -> Call:
        """Take a path in hand until ``turn`` is closed; wait while an earlier attach has it.

        :returns: the call to go on with; it may have become another, as that may take long.
        :raises BrickException: it took too long, or nobody wants a disk by then.
        """
        with fc_turns.Queue(self._host.locks, state.path, turn) as queue:
            if self._call.wait_until(queue.is_mine, what="its path", limit_s=_MOMENT_S):
                return self._call
            state.waiting = True
            self.news.set()
            call = self._call.later(f"turn for {state.path}", _WATCH_S)
            try:
                with call.step(f"wait for an earlier attach by {state.path}"):
                    call.wait_until(
                        lambda: self._is_over() or queue.is_mine(), what="earlier attach"
                    )
            finally:
                state.waiting = False
            if self._is_over() or not queue.is_mine():
                raise exception.BrickException(_IN_HAND)
        return self._call.later(f"find {state.path}", _WATCH_S)

    def _watch(self, state: PathState) -> None:
        """Wait for what the kernel may still show: nobody else would know whence it came.

        A later attach that waits for the path is let have it. That one finds what comes, whichever
        scan it comes by.
        """
        call = self._call.later(f"scan of {state.path}", _WATCH_S)

        def look() -> Disk | None:
            return fc_paths.find_disk(self._host.sysfs, state.path)

        call.wait_until(
            lambda: look() or fc_turns.is_awaited(self._host.locks, state.path),
            what="disk of the LUN",
        )
        disk = look()
        if disk is not None:
            state.found = Found(disk, was_there=False)

    def _find(self, call: Call, state: PathState) -> Found | None:
        path, sysfs = state.path, self._host.sysfs

        def scan() -> None:
            if state.blocked:
                return
            try:
                self._scanner.scan(call, path)
            except (TimeoutError, exception.ExecutionTimeout):
                state.blocked = True
                raise
            finally:
                state.scanned = True

        return scsi_volume.find_or_scan(
            self._host,
            call,
            look=lambda: fc_paths.find_disk(sysfs, path),
            coming=lambda: fc_paths.find_bare(sysfs, path) is not None,
            scan=scan,
            scan_at_once=True,
            # It scans once before it counts, and once more at the end.
            attempts=self._attempts - 2,
            enough=lambda: self._is_over() or (state.scanned and bool(self.disks())),
        )


def _unfinished(state: PathState) -> Exception | None:
    """Return why a path that has met no error has given no disk yet; None if there is none."""
    if state.ended:
        return None
    return exception.BrickException(_IN_HAND if state.waiting else "still under way")
