# SPDX-License-Identifier: Apache-2.0
"""Bringing up the paths of an iSCSI volume: reach the portal, log in, find the disk of the LUN.

Each path comes up in a thread of its own, which has the path to itself until it has settled what
becomes of it: no later attach takes a disk that an earlier one may still take away.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import (
    iscsi,
    iscsi_sessions,
    open_iscsi,
    scsi,
    scsi_attach,
    scsi_volume,
)
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.identity import Identity
from os_brick.initiator.linux.iscsi import IscsiPath, Session
from os_brick.initiator.linux.iscsi_volume import IscsiVolume
from os_brick.initiator.linux.scsi import Disk
from os_brick.initiator.linux.scsi_attach import Readiness
from os_brick.initiator.linux.scsi_volume import Found

LOG = logging.getLogger(__name__)

# How long a portal that does not answer is asked again; open-iscsi's own patience as shipped.
_PATIENCE_S = 120.0
# One question, and the time after which an attach that has other paths does not wait for the
# answer.
ANSWER_S = 5.0
_QUIET_AFTER_S = 3.0
_ASK_AGAIN_S = 2.0
# If no portal at all answers us, iscsid may still reach them (another network namespace).
NOBODY_ANSWERS_S = 12.0
# What was begun is seen to its end, by whoever began it, for so long after the call.
LATE_LIMIT_S = 300.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How a connector attaches.

    :ivar iface: open-iscsi's interface for new records.
    :ivar probe: whether portals can be asked by TCP first (not where a card or RDMA does the
        transport).
    :ivar attempts: ``device_scan_attempts``.
    """

    iface: str
    probe: bool
    attempts: int
    readiness: Readiness


@dataclass
class PathState:
    """What is known of one path while it comes up; written by its thread, read by the attach."""

    path: IscsiPath
    asked_s: float
    """Since when its portal is asked."""
    answered: bool = False
    active: bool = False
    """Its portal answered and nobody else is at the path: it is being logged in to or scanned."""
    trouble: str = ""
    made_session: bool = False
    session_was_idle: bool = False
    found: Found | None = None
    error: Exception | None = None

    @property
    def is_under_way(self) -> bool:
        """Tell whether it is being logged in to or scanned."""
        return self.active and self.found is None and self.error is None


class NotWanted(Exception):
    """The volume was detached, or its attach failed, before this path came up."""


class BringUp:
    """The paths of one attempt to attach a volume.

    Paths by another target name than the one that the caller gave, which a discovery found, may be
    of other volumes: they wait until the named target has given a disk, and count only if they give
    the same volume.

    :param is_unwanted: tells that the volume was detached, or its attach failed.
    :param when_ended: called in a path's thread, which still has the path to itself, with what it
        has found or why not. It has to set both in the path's state.
    """

    def __init__(
        self,
        host: Host,
        call: Call,
        volume: IscsiVolume,
        settings: Settings,
        *,
        is_unwanted: Callable[[], bool],
        when_ended: Callable[[PathState, Found | None, Exception | None], None],
    ) -> None:
        self._host = host
        self._call = call
        self._volume = volume
        self._settings = settings
        self._is_unwanted = is_unwanted
        self._when_ended = when_ended
        self._login_anyway = threading.Event()
        self.states = {path: PathState(path, call.elapsed_s()) for path in volume.paths}

    # -- for the attach -----------------------------------------------------------------------
    def begin_anew(self, path: IscsiPath, *, anyway: bool) -> PathState:
        """Return the state of a path that has yet to come up.

        :param anyway: log in though the portal does not answer us.
        """
        if anyway:
            self._login_anyway.set()
        self.states[path] = PathState(path, self._call.elapsed_s())
        return self.states[path]

    def disks(self) -> list[Disk]:
        """Return the disks that have appeared, in the order of the paths."""
        return [state.found.disk for state in self.states.values() if state.found is not None]

    def is_busy(self) -> bool:
        """Tell whether a path is on its way: its portal answers, or has not had the time to."""
        quiet_s = self._call.elapsed_s() - _QUIET_AFTER_S
        return any(
            state.is_under_way
            or (
                state.found is None
                and state.error is None
                and not state.trouble
                and state.asked_s > quiet_s
            )
            for state in self.states.values()
        )

    def may_log_in_anyway(self) -> bool:
        """Tell whether iscsid may be asked though no portal answers us: only if it ends in time."""
        answers = any(state.answered or state.found for state in self.states.values())
        return not answers and self._call.remaining_s() > open_iscsi.LOGIN_S

    def leave(self, call: Call, state: PathState) -> None:
        """Log out of a path's target if this attempt logged in and nobody uses it. Never raises."""
        # A session that was there and idle is somebody's; one that others emptied meanwhile is ours
        # to end.
        if not state.made_session and (state.session_was_idle or not state.active):
            return
        state.made_session = False
        try:
            iscsi_sessions.leave(self._host, call, state.path.target)
        except Exception as exc:  # noqa: BLE001 - the first cause is what the caller must see
            LOG.warning(
                "There were errors leaving %s, leftovers may remain in the system: %s",
                state.path.target,
                exc,
            )

    # -- one path -----------------------------------------------------------------------------
    def work(
        self,
        state: PathState,
        patience_s: float = _PATIENCE_S,
        busy_limit_s: float | None = None,
    ) -> None:
        """Bring one path up, in a thread of its own.

        :param patience_s: how long a portal that does not answer is asked.
        :param busy_limit_s: how long to wait for an earlier attach that is still at the path; None:
            until the call's deadline.
        """
        found: Found | None = None
        error: Exception | None = None
        with contextlib.ExitStack() as held:
            try:
                self._wait_for_the_named(state)
                self._reach(state, patience_s)
                self._have_alone(state, busy_limit_s, held)
                found = self._bring_up(state)
            except NotWanted as exc:
                error = exc
            except Exception as exc:  # noqa: BLE001 - a path's thread must not die silently; the attach decides
                LOG.warning("No path by %s: %s", state.path, exc)
                error = exc
            if error is not None and self._volume.is_candidate(state.path):
                # Its detach would not know of a target that did not give the volume.
                self.leave(self._call.later(f"leave {state.path.target}", LATE_LIMIT_S), state)
            if found is not None:
                self._may_be_asked_now(state)
            self._when_ended(state, found, error)

    def _have_alone(
        self, state: PathState, limit_s: float | None, held: contextlib.ExitStack
    ) -> None:
        """Return when no thread of an earlier attach is at the path any more, and none can come.

        What such a thread brings up late it takes away again unless its own attach wants it: a disk
        that it has found must not be taken by anybody else before.

        :param held: gets the lock.
        """
        name = state.path.lock_name

        def look() -> str:
            if self._host.locks.taken(name, held):
                return "ours"
            return "unwanted" if self._is_unwanted() else ""

        with self._call.step(f"lock {name}", quiet=True):
            answer = self._call.wait_until(look, what=f"lock {name}", limit_s=_QUIET_AFTER_S)
            if not answer:
                state.trouble = "An earlier attach is not done with this path."
                answer = self._call.wait_until(look, what=f"lock {name}", limit_s=limit_s)
        if self._is_unwanted():
            raise NotWanted
        if answer != "ours":
            raise exception.VolumeDeviceNotFound(device=str(state.path), reason=state.trouble)
        for late in dict.fromkeys(
            path.late_lock_name
            for path in self._volume.paths
            if not self._volume.is_candidate(path)
        ):
            self._call.wait_until(
                partial(self._host.locks.taken, late, held, shared=True), what=f"lock {late}"
            )
        state.active = True

    def _bring_up(self, state: PathState) -> Found:
        target = state.path.target
        with self._host.locks.held(self._call, [target.lock_name], shared=True):
            session, state.made_session = iscsi_sessions.get_session(
                self._host, self._call, target, self._volume.chap, self._settings.iface
            )
            state.session_was_idle = not state.made_session and not iscsi.is_used(
                self._host.sysfs, session
            )
            with self._call.step(f"find {state.path}") as step:
                found = self._find(state, session)
                step.outcome = str(found.disk) if found else "not found"
        if found is not None:
            return found
        if self._is_unwanted():
            raise NotWanted
        LOG.warning(
            "LUN %s on iSCSI portal %s not found on sysfs after logging in.",
            state.path.lun,
            target.portal,
        )
        raise exception.VolumeDeviceNotFound(
            device=str(state.path), reason="The target did not show the LUN."
        )

    def _find(self, state: PathState, session: Session) -> Found | None:
        sysfs, lun = self._host.sysfs, state.path.lun

        def scan() -> None:
            # Its host's number is another session's soon, and so would the LUN be.
            if not iscsi.is_there(sysfs, session):
                raise OSError(errno.ENODEV, f"session {session.sid} has ended")
            for channel, target in iscsi.targets_of(sysfs, session) or (("-", "-"),):
                self._host.changes.scan(self._call, session.host, str(channel), str(target), lun)

        if self._volume.is_candidate(state.path) and not state.made_session:
            self._check_disk_there(state, iscsi.find_disk(sysfs, session, lun))
        bare = None if state.made_session else iscsi.find_bare(sysfs, session, lun)
        found = scsi_volume.find_or_scan(
            self._host,
            self._call,
            look=lambda: iscsi.find_disk(sysfs, session, lun),
            coming=lambda: iscsi.find_bare(sysfs, session, lun) is not None,
            scan=scan,
            scan_at_once=True,
            attempts=self._settings.attempts,
            enough=self._is_unwanted,
        )
        if found is None:
            self._take_back(state, session, bare)
        if found is not None and state.made_session:
            # Where the kernel scans by itself, the log-in has brought the disk before it was
            # looked for.
            found = dataclasses.replace(found, was_there=False)
        if found is not None and self._volume.is_candidate(state.path):
            self._check_disk_made(state, found)
        return found

    def _take_back(self, state: PathState, session: Session, before: Disk | None) -> None:
        """Remove the device that a scan has made and that is no disk in time: nobody else knows of
        it, and it would become one later.

        :param before: the device that was there before; it is not ours to remove.
        """
        sysfs, lun = self._host.sysfs, state.path.lun
        left = iscsi.find_disk(sysfs, session, lun) or iscsi.find_bare(sysfs, session, lun)
        if left is None or (before is not None and left.instance == before.instance):
            return
        call = self._call.later(f"take back {left}", LATE_LIMIT_S)
        scsi_attach.remove_made(self._host, call, [Found(left, was_there=False)])

    # -- targets of another name --------------------------------------------------------------
    def _wait_for_the_named(self, state: PathState) -> None:
        """Return when the path may be asked: one by another name only when the named target has
        given a disk.

        :raises VolumeDeviceNotFound: it has not.
        """
        if not self._volume.is_candidate(state.path):
            return
        named = [one for path, one in self.states.items() if not self._volume.is_candidate(path)]

        def decided() -> bool:
            return (
                any(one.found is not None for one in named)
                or all(one.error is not None for one in named)
                or self._is_unwanted()
            )

        self._call.wait_until(decided, what=f"disk by {self._volume.main}")
        if self._is_unwanted():
            raise NotWanted
        if not any(one.found is not None for one in named):
            raise exception.VolumeDeviceNotFound(
                device=str(state.path),
                reason=f"It was not asked, as {self._volume.main.target.iqn} gave no disk.",
            )

    def _may_be_asked_now(self, named: PathState) -> None:
        """Give the others the time to answer from now on, as the named target has given a disk."""
        if self._volume.is_candidate(named.path):
            return
        for path, one in self.states.items():
            if self._volume.is_candidate(path) and not one.answered:
                one.asked_s = self._call.elapsed_s()

    def _check_disk_there(self, state: PathState, disk: Disk | None) -> None:
        """Raise if a disk that is there is not known to be the volume; it is left as it is.

        :raises VolumeDeviceNotFound: it is not.
        :raises OSError: it does not answer.
        """
        if disk is not None:
            says = self._host.changes.inquire(self._call, disk)
            if says is None or not self._is_ours(says):
                raise self._other_volume(state)

    def _check_disk_made(self, state: PathState, found: Found) -> None:
        """Take a disk away again that is not known to be the volume.

        :raises VolumeDeviceNotFound: it was not.
        """
        if not self._is_ours(scsi.read_identity(self._host.sysfs, found.disk)):
            call = self._call.later(f"another volume by {state.path}", LATE_LIMIT_S)
            scsi_attach.remove_made(self._host, call, [found])
            raise self._other_volume(state)

    def _is_ours(self, identity: Identity) -> bool:
        """Tell whether an identity is that of a disk that the named target gave."""
        return any(
            identity.same_as(scsi.read_identity(self._host.sysfs, state.found.disk))
            for path, state in self.states.items()
            if state.found is not None and not self._volume.is_candidate(path)
        )

    @staticmethod
    def _other_volume(state: PathState) -> exception.VolumeDeviceNotFound:
        return exception.VolumeDeviceNotFound(
            device=str(state.path), reason="The LUN of this target is another volume."
        )

    # -- portals ------------------------------------------------------------------------------
    def _reach(self, state: PathState, patience_s: float) -> None:
        """Return when there is a usable session, or the portal answers so that one can be made.

        Asked before iscsid is: what iscsid has begun it goes on with for minutes, and nobody can
        stop it.

        :raises TargetPortalNotFound: it did not answer for so long.
        """
        began_s = self._call.elapsed_s()
        target = state.path.target
        while True:
            if iscsi_sessions.logged_in(self._host, target) is not None:
                break
            if not self._settings.probe or self._login_anyway.is_set():
                break
            trouble = self._ask(target.portal.host, target.portal.port)
            if not trouble:
                break
            state.trouble = trouble
            waited_s = self._call.elapsed_s() - began_s
            if self._is_unwanted():
                raise NotWanted
            if patience_s >= NOBODY_ANSWERS_S <= waited_s and self.may_log_in_anyway():
                self._login_anyway.set()
                break
            if waited_s >= patience_s or self._call.remaining_s() <= 0:
                raise exception.TargetPortalNotFound(target_portal=target.portal, reason=trouble)
            self._call.pause(_ASK_AGAIN_S)
        state.answered = True

    def _ask(self, address: str, port: int) -> str:
        """Return what is wrong with a portal; nothing if it answers."""
        limit_s = self._call.within(ANSWER_S)
        try:
            if self._host.network.answers(address, port, limit_s):
                return ""
        except OSError as exc:
            return f"It refuses connections ({exc.strerror or exc})."
        return "It does not answer."
