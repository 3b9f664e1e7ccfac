# SPDX-License-Identifier: Apache-2.0
"""The way of one attach of a namespace: reach the portals, connect, find it, have its disk.

Each portal comes up in a thread of its own (:mod:`os_brick.initiator.linux.nvme_bring_up`). The
attach returns when the disk can be used; a portal that takes longer joins by itself later, unless
the volume has been detached meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import nvme_connections, nvme_namespaces
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.nvme_bring_up import Crew, PathState
from os_brick.initiator.linux.nvme_changes import FAILURES
from os_brick.initiator.linux.nvme_connections import Way
from os_brick.initiator.linux.nvme_namespaces import Namespace
from os_brick.initiator.linux.nvme_volume import NvmeTarget

LOG = logging.getLogger(__name__)

# How long portals are waited for once the disk can be used: those that answer, as long again as it
# took so far; those that do not, a moment.
_OTHERS_LEAST_S = 0.5
_OTHERS_MOST_S = 5.0
_ANSWER_S = 0.2
# ANA: the subsystem may be moving a namespace from one controller to another (ANATT, 10 s usual).
_ACCESS_S = 30.0
_UNDER_WAY_S = 10.0
_UNDO_LIMIT_S = 300.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How a connector attaches.

    :ivar multipath: connect all portals; otherwise one is enough.
    :ivar attempts: ``device_scan_attempts``: how often a controller is scanned for a namespace.
    """

    multipath: bool
    attempts: int


class Attempt:
    """One attach of one namespace. The caller holds the volume's lock.

    :param ways: to its subsystem, in the order of preference.
    :param lock_names: of the volume's lock, for paths that come up after the attach has returned.
    """

    def __init__(
        self,
        host: Host,
        call: Call,
        target: NvmeTarget,
        ways: Sequence[Way],
        settings: Settings,
        lock_names: Sequence[str],
    ) -> None:
        self._host = host
        self._call = call
        self._target = target
        self._settings = settings
        self._disk: str | None = None
        self._instance: int | None = None
        if not settings.multipath:
            # What is connected already needs no connect.
            ways = sorted(ways, key=lambda way: nvme_connections.find_live(host, way) is None)
        self._crew = Crew(
            host,
            call,
            target,
            [PathState(way) for way in ways],
            at_once=settings.multipath,
            attempts=settings.attempts,
            lock_names=lock_names,
        )

    def run(self) -> Namespace:
        """Attach and return the namespace, by a path that can be used.

        :raises VolumeDeviceNotFound: says of each portal why; the host is as it was before.
        """
        try:
            self._crew.start()
            one, instance = self._wait_for_disk()
            self._wait_for_others()
            self._check_readable(one, instance)
            self._crew.finish((one.head, instance))
            self._disk, self._instance = one.head, instance
        except BaseException:
            self._undo()
            raise
        self._report_missing()
        return one

    # -- the disk ----------------------------------------------------------------------------
    def _wait_for_disk(self) -> tuple[Namespace, int]:
        self._call.wait_until(
            lambda: self._usable() is not None or self._crew.all_ended(),
            what="namespace",
            event=self._crew.news,
        )
        if self._usable() is None and self._crew.found():
            with self._call.step("wait for access"):
                self._call.wait_until(
                    lambda: self._usable() is not None, what="access", limit_s=_ACCESS_S
                )
        usable = self._usable()
        if usable is None:
            raise self._not_found()
        return usable

    def _usable(self) -> tuple[Namespace, int] | None:
        """Return a path that can be used, and the instance of its disk.

        By the time it can be, what was found may be gone, and its names may be another volume's.
        """
        sysfs = self._host.sysfs
        for one in self._crew.found():
            # First of all: that the path is still there proves that this disk is its own.
            instance = sysfs.instance("block", one.head)
            usable = nvme_namespaces.is_usable(self._host, one)
            if instance is not None and usable and nvme_namespaces.is_shown(sysfs, one):
                return one, instance
        return None

    def _wait_for_others(self) -> None:
        """Give the other portals a moment to come up too."""
        if not self._settings.multipath:
            return
        began_s = self._call.elapsed_s()

        def enough() -> bool:
            if self._call.elapsed_s() - began_s < _ANSWER_S:
                return self._crew.all_ended()
            return not any(state.is_under_way for state in self._crew.states)

        self._call.wait_until(
            enough,
            what="the other portals",
            limit_s=min(max(began_s, _OTHERS_LEAST_S), _OTHERS_MOST_S),
            event=self._crew.news,
        )

    def _check_readable(self, one: Namespace, instance: int) -> None:
        try:
            self._host.nvme.read_block(self._call, one.head)
        except FAILURES as exc:
            raise exception.VolumeDeviceNotFound(
                device=one.path, reason=f"It is there but cannot be read: {exc}"
            ) from exc
        if self._host.sysfs.instance("block", one.head) != instance:
            raise exception.VolumeDeviceNotFound(
                device=one.path, reason="The namespace was taken away while it was attached."
            )

    # -- afterwards --------------------------------------------------------------------------
    def _failures(self) -> str:
        told = []
        for state in self._crew.states:
            if state.found is None:
                told.append(f"{state.way}: {state.error or state.trouble or 'still under way'}")
        return "; ".join(told)

    def _not_found(self) -> exception.VolumeDeviceNotFound:
        found = self._crew.found()
        if not found:
            return exception.VolumeDeviceNotFound(
                device=self._target.nqn,
                reason=f"The {self._target} was not found. {self._failures()}",
            )
        states = ", ".join(f"{one} {self._access(one)}" for one in found)
        return exception.VolumeDeviceNotFound(
            device=self._target.nqn, reason=f"No path to the {self._target} can be used: {states}"
        )

    def _access(self, one: Namespace) -> str:
        if not nvme_namespaces.is_shown(self._host.sysfs, one):
            return "was there, but is not any more"
        return nvme_namespaces.read_access(self._host.sysfs, one)

    def _report_missing(self) -> None:
        missing = self._failures()
        if missing and self._settings.multipath:
            LOG.warning("Attached the %s without these portals: %s", self._target, missing)

    @property
    def disk(self) -> str | None:
        """Kernel name of the disk that was attached; None if none was."""
        return self._disk

    def has_disk(self) -> bool:
        """Tell whether its disk is still there, not a later one of its name.

        :raises OSError: the host could not be looked at.
        """
        return (
            self._disk is not None
            and self._host.sysfs.instance("block", self._disk) == self._instance
        )

    def is_ours(self, one: Namespace) -> bool:
        """Tell whether a namespace on a controller that this attempt has made is its own."""
        return one.controller.nqn == self._target.nqn and self._crew.is_ours(one)

    def take_back(self, is_ours: Callable[[Namespace], bool] | None = None) -> None:
        """Take away what this attempt made, though it succeeded; what was there before stays.

        Never raises.

        :param is_ours: which namespaces are taken back, if there are more than this attempt's.
        """
        self._undo(is_ours)

    def _undo(self, is_ours: Callable[[Namespace], bool] | None = None) -> None:
        """Take away what this attempt made; what was there before stays. Never raises."""
        self._crew.finish(None)
        call = self._call.later(f"undo {self._call.operation}", _UNDO_LIMIT_S)
        with self._call.step("undo"):
            call.wait_until(
                lambda: not any(state.is_under_way for state in self._crew.states),
                what="paths under way",
                limit_s=_UNDER_WAY_S,
            )
            for state in self._crew.states:
                if state.ended:
                    self._crew.leave(call, state, is_ours)
