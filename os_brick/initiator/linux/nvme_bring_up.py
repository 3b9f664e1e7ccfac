# SPDX-License-Identifier: Apache-2.0
"""Bringing the paths of one attach up, each in a thread of its own.

The kernel makes one controller of the host at a time (``nvmf_dev_mutex``): a connect to a portal
that does not answer holds up all others. So portals are asked by TCP first.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import nvme, nvme_connections, nvme_namespaces
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.nvme import Controller
from os_brick.initiator.linux.nvme_connections import ConnectFailed, Way
from os_brick.initiator.linux.nvme_namespaces import Namespace
from os_brick.initiator.linux.nvme_search import Search
from os_brick.initiator.linux.nvme_volume import NvmeTarget

LOG = logging.getLogger(__name__)

#: What a controller in trouble is given to come back, besides its own delay between tries.
TIME_TO_CONNECT_S = 10.0
#: The kernel's delay between tries where it does not tell another.
DEFAULT_RECONNECT_DELAY_S = 10.0

_ANSWER_S = 5.0
# Where one portal is enough, the next one has its turn when the one before has not answered for so
# long, or has answered but given no namespace for so long.
_TURN_QUIET_S = 1.0
_TURN_BUSY_S = 10.0
_LEAVING_S = 10.0
_TRIES = 3
_LATE_LIMIT_S = 300.0
# How long a path that is late waits for the volume's locks: its attach may just be returning.
_MOMENT_S = 1.0


@dataclass(eq=False)
class PathState:
    """What is known of one path while it comes up; written by its thread, read by the attach."""

    way: Way
    began_s: float | None = None
    asked: bool = False
    answers: bool = False
    active: bool = False
    """Its portal answered: it is being connected or searched."""
    trouble: str = ""
    controller: Controller | None = None
    made: bool = False
    found: Namespace | None = None
    error: Exception | None = None
    ended: bool = False

    @property
    def is_under_way(self) -> bool:
        """Whether something will come of it soon."""
        return self.active and not self.ended


class _NotWanted(Exception):
    """The volume was detached, or its attach is over, before this path came up."""


class Crew:
    """The threads that bring up the paths of one attach.

    :param at_once: all of them together; otherwise one after the other until one has succeeded.
    """

    def __init__(
        self,
        host: Host,
        call: Call,
        target: NvmeTarget,
        states: Sequence[PathState],
        *,
        at_once: bool,
        attempts: int,
        lock_names: Sequence[str],
    ) -> None:
        self._host = host
        self._call = call
        self._target = target
        self.states = list(states)
        self._at_once = at_once
        self._lock_names = lock_names
        self._search = Search(host, call, target, attempts, self._is_enough)
        self._mutex = threading.Lock()
        self._over = False
        self._kept: tuple[str, int] | None = None
        #: Set when something has become of a path.
        self.news = threading.Event()

    def start(self) -> None:
        """Start the threads."""
        for transport in dict.fromkeys(state.way.portal.transport for state in self.states):
            nvme_connections.load_driver(self._host, self._call, transport)
        tasks = {str(number): partial(self._work, one) for number, one in enumerate(self.states)}
        running = self._call.side_by_side(tasks)
        for number, outcome in running.ended().items():
            state = self.states[int(number)]
            if outcome.error is not None and not state.ended:  # there were no more threads
                self._end(state, None, outcome.error)

    def all_ended(self) -> bool:
        """Tell whether nothing more will come of any path; threads may still clean up."""
        return all(state.ended for state in self.states)

    def _end(self, state: PathState, found: Namespace | None, error: Exception | None) -> bool:
        """Enter what became of a path; tell whether the attach is over by now."""
        with self._mutex:
            state.found, state.error, state.ended = found, error, True
            late = self._over
        self.news.set()
        return late

    def found(self) -> list[Namespace]:
        """Return the namespace as the paths show it that have come up."""
        return [state.found for state in self.states if state.found is not None]

    def finish(self, disk: tuple[str, int] | None) -> None:
        """Say that the attach is over, with which disk (its name and instance), if any."""
        with self._mutex:
            self._over = True
            self._kept = disk

    # -- one path ----------------------------------------------------------------------------
    def _work(self, state: PathState) -> None:
        """Bring one path up in its own thread; when the attach is over by then, see to it alone.

        The path's lock is held until nothing more can come of it, so that a later attach of the
        namespace does not use what this thread is going to take away.
        """
        found: Namespace | None = None
        error: Exception | None = None
        with contextlib.ExitStack() as path:
            try:
                self._wait_for_turn(state)
                self._wait_for_earlier(state, path)
                with self._host.locks.held(self._call, [state.way.lock_name], shared=True):
                    found = self._bring_up(state)
            except _NotWanted as exc:
                error = exc
            except Exception as exc:  # noqa: BLE001 - a path's thread must not die silently; the attach decides
                LOG.debug("No path by %s: %s", state.way, exc)
                error = exc
            late = self._end(state, found, error)
            if isinstance(error, ConnectFailed) and error.unfinished:
                self._end_unfinished(state)
            elif late:
                self._settle_late(state)

    def _wait_for_turn(self, state: PathState) -> None:
        """Return when a path may begin.

        :raises _NotWanted: another path has made it meanwhile.
        """
        if not self._at_once:
            before = self.states[: self.states.index(state)]
            self._call.wait_until(
                lambda: self._over or all(self._is_hopeless(one) for one in before), what="its turn"
            )
            if self._over or any(self._has_come(one) for one in before):
                raise _NotWanted
        state.began_s = self._call.elapsed_s()

    def _wait_for_earlier(self, state: PathState, path: contextlib.ExitStack) -> None:
        """Return with the path's lock, which is held until ``path`` is closed: earlier attaches of
        the namespace are through with this way then.

        Until then the path counts as one whose portal has not answered.

        :raises _NotWanted: the volume has come by another path, or is not wanted any more.
        :raises DeadlineExceeded: the attach's time was over before.
        """
        state.trouble = "an earlier attach by this portal has not come to its end"
        name = f"nvme path {state.way.lock_name} {self._target.lock_name}"
        path.enter_context(self._host.locks.held(self._call, [name]))
        has_come = not self._at_once and any(self._has_come(one) for one in self.states)
        if self._is_enough() or has_come:
            raise _NotWanted
        state.trouble = ""

    def _is_hopeless(self, state: PathState) -> bool:
        if state.ended:
            return not self._has_come(state)
        if state.began_s is None:
            return False
        patience_s = _TURN_BUSY_S if state.active else _TURN_QUIET_S
        return self._call.elapsed_s() - state.began_s >= patience_s

    def _has_come(self, state: PathState) -> bool:
        """Tell whether I/O can go by a path that has come up: ANA may not allow it."""
        return state.found is not None and nvme_namespaces.is_accessible(
            self._host.sysfs, state.found
        )

    def _bring_up(self, state: PathState) -> Namespace:
        for _ in range(_TRIES):
            state.controller = self._get_controller(state)
            state.active = state.answers = True
            found = self._search.find(state.controller, reused=not state.made)
            if found is not None:
                return found
            if self._is_enough():
                raise _NotWanted
            if nvme.is_there(self._host.sysfs, state.controller):
                break
            # Somebody who does not share our locks has disconnected it under us.
            state.made = False
        raise exception.VolumeDeviceNotFound(
            device=self._target.nqn,
            reason=f"{state.controller} does not show the {self._target}.",
        )

    # -- its controller ----------------------------------------------------------------------
    def _get_controller(self, state: PathState) -> Controller:
        """Return a live controller, one that is there or one that is made."""
        live = self._wait_for_old_one(state)
        if live is not None:
            return live
        self._reach(state)
        if self._is_enough():
            raise _NotWanted
        state.active = True
        controller, made = nvme_connections.connect(self._host, self._call, state.way)
        # Known before it is live: whatever becomes of it, it is taken away if it was made here.
        state.controller, state.made = controller, state.made or made
        if nvme.is_live(self._host.sysfs, controller):
            return controller
        live = self._wait_for_old_one(state)
        if live is None:
            raise ConnectFailed(target_portal=state.way.portal, reason="It was gone at once.")
        return live

    def _wait_for_old_one(self, state: PathState) -> Controller | None:
        """Return the controller that is there, live, after it had its time; None if there is none
        (any more).

        :raises TargetPortalNotFound: it is there but does not come back.
        """
        there = nvme_connections.find(self._host, state.way)
        live = nvme_connections.live_of(self._host, there)
        if live is not None or not there:
            return live
        told = [nvme.read_reconnect_delay(self._host.sysfs, one) for one in there]
        delays = [float(delay) for delay in told if delay is not None]
        patience_s = TIME_TO_CONNECT_S + max(delays, default=DEFAULT_RECONNECT_DELAY_S)

        def leaving() -> bool:
            return all(
                nvme.read_state(self._host.sysfs, one) not in nvme.COMING
                for one in nvme_connections.find(self._host, state.way)
            )

        state.trouble = f"{there[0]} is {nvme.read_state(self._host.sysfs, there[0])}"
        with self._call.step(f"wait for {there[0]}", quiet=True):
            self._call.wait_until(
                lambda: (
                    nvme_connections.find_live(self._host, state.way)
                    or leaving()
                    or self._is_enough()
                ),
                what=f"return of {there[0]}",
                limit_s=patience_s,
            )
            if leaving():
                self._call.wait_until(
                    lambda: (
                        nvme_connections.find_live(self._host, state.way)
                        or not nvme_connections.find(self._host, state.way)
                    ),
                    what=f"end of {there[0]}",
                    limit_s=_LEAVING_S,
                )
        if self._is_enough():
            raise _NotWanted
        live = nvme_connections.find_live(self._host, state.way)
        left = nvme_connections.find(self._host, state.way)
        if live is None and any(
            nvme.read_state(self._host.sysfs, one) in nvme.COMING for one in left
        ):
            raise exception.TargetPortalNotFound(
                target_portal=state.way.portal,
                reason=f"{left[0]} has not reconnected for {patience_s:.0f} s.",
            )
        return live

    def _reach(self, state: PathState) -> None:
        """Return when the portal answers, or when none of them does: then nvme-cli may still reach
        it (it may run in another network namespace).

        :raises TargetPortalNotFound: it does not answer but others do.
        """
        portal = state.way.portal
        if portal.transport == nvme.TCP:
            state.trouble = self._ask(portal.address, int(portal.port))
        state.answers = not state.trouble
        state.asked = True
        if state.answers:
            return

        def others_known() -> bool:
            return self._others_do() or all(
                one.asked or one.ended or (one.began_s is None and not self._at_once)
                for one in self.states
            )

        self._call.wait_until(others_known, what="answers of the portals", limit_s=_ANSWER_S)
        if self._others_do() or self._is_enough():
            raise exception.TargetPortalNotFound(target_portal=portal, reason=state.trouble)

    def _others_do(self) -> bool:
        return any(one.answers or one.found is not None for one in self.states)

    def _ask(self, address: str, port: int) -> str:
        """Return what is wrong with a portal; nothing if it answers."""
        try:
            if self._host.network.answers(address, port, self._call.within(_ANSWER_S)):
                return ""
        except OSError as exc:
            return f"It refuses connections ({exc.strerror or exc})."
        return "It does not answer."

    # -- afterwards --------------------------------------------------------------------------
    def _is_wanted(self) -> bool:
        """Whether the attach has succeeded and its volume is still here."""
        if self._kept is None:
            return False
        head, instance = self._kept
        return self._host.sysfs.instance("block", head) == instance

    def _is_enough(self) -> bool:
        """Whether no further path is needed."""
        return self._over and not (self._at_once and self._is_wanted())

    def is_ours(self, one: Namespace) -> bool:
        """Tell whether a namespace on a controller that this attach has made is the wanted one."""
        return self._search.is_ours(one)

    def leave(
        self, call: Call, state: PathState, is_ours: Callable[[Namespace], bool] | None = None
    ) -> None:
        """Disconnect what was made for a path, unless others use it by now. Never raises.

        :param is_ours: which namespaces are to go with it; the wanted one only if None.
        """
        if not state.made or state.controller is None:
            return
        state.made = False
        try:
            # What stays for others may be theirs whose own attach fails next: see take_back().
            state.made = not nvme_connections.leave(
                self._host, call, state.way, state.controller, is_ours or self.is_ours
            )
        except Exception as exc:  # noqa: BLE001 - the first cause is what the caller must see
            LOG.warning(
                "There were errors leaving %s, leftovers may remain in the system: %s",
                state.way,
                exc,
            )

    def _settle_late(self, state: PathState) -> None:
        """See to a path that came up after the attach had returned or failed.

        A volume that somebody attaches or detaches right now is not waited for: an attach may be
        waiting for this very path, to connect it anew.
        """
        if not state.made:
            return
        call = self._call.later(f"late path {state.way}", _LATE_LIMIT_S)
        try:
            with self._host.locks.held_if_soon(call, self._lock_names, _MOMENT_S) as alone:
                if alone and self._at_once and self._is_wanted() and state.found is not None:
                    LOG.info("Late path %s joined the %s", state.way, self._target)
                    return
                self.leave(call, state)
        except Exception as exc:  # noqa: BLE001 - nobody is left to whom it could be raised
            LOG.warning("Late path %s could not be cleaned up: %s", state.way, exc)

    def _end_unfinished(self, state: PathState) -> None:
        """See to the controller that the kernel makes after its connect was given up, should it
        make one."""
        call = self._call.later(f"unfinished connect of {state.way}", _LATE_LIMIT_S)
        controller = call.wait_until(
            lambda: nvme_connections.find_live(self._host, state.way),
            what=f"controller by {state.way}",
            limit_s=nvme_connections.CONNECT_LIMIT_S,
        )
        if controller is not None:
            state.controller, state.made = controller, True
            self._settle_late(state)
