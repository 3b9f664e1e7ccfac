# SPDX-License-Identifier: Apache-2.0
"""The way of one iSCSI attach: reach the portals, log in, find the disk of the LUN, have the map.

All state of an attempt is in an :class:`Attempt`. Each path comes up in a thread of its own. A
portal that does not answer keeps nobody: the attach returns when the map can be used by the portals
that do, and the thread goes on for a while; if its path comes up later it joins the map, unless the
volume has been detached meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import (
    iscsi,
    iscsi_sessions,
    multipath,
    open_iscsi,
    scsi,
    scsi_attach,
    scsi_volume,
)
from os_brick.initiator.linux.call import Call, SideBySide
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.iscsi import IscsiPath, Session
from os_brick.initiator.linux.iscsi_volume import IscsiVolume
from os_brick.initiator.linux.multipath import Map
from os_brick.initiator.linux.scsi import Disk
from os_brick.initiator.linux.scsi_attach import Attached, Readiness
from os_brick.initiator.linux.scsi_volume import Found

LOG = logging.getLogger(__name__)

# How long a portal that does not answer is asked again; open-iscsi's own patience as shipped.
_PATIENCE_S = 120.0
# One question, and the time after which an attach that has other paths does not wait for the
# answer.
_ANSWER_S = 5.0
_QUIET_AFTER_S = 3.0
_ASK_AGAIN_S = 2.0
# If no portal at all answers us, iscsid may still reach them (another network namespace).
_NOBODY_ANSWERS_S = 12.0
_LATE_LIMIT_S = 300.0


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
class _PathState:
    """What is known of one path while it comes up; written by its thread, read by the attach."""

    path: IscsiPath
    active: bool = False
    """Its portal answered: it is being logged in to or scanned."""
    trouble: str = ""
    made_session: bool = False
    session_was_idle: bool = False
    found: Found | None = None
    error: Exception | None = None


class _NotWanted(Exception):
    """The volume was detached, or its attach failed, before this path came up."""


class Attempt:
    """One attach of one volume. The caller holds the volume's lock."""

    def __init__(self, host: Host, call: Call, volume: IscsiVolume, settings: Settings) -> None:
        self._host = host
        self._call = call
        self._volume = volume
        self._settings = settings
        self._states = {path: _PathState(path) for path in volume.paths}
        self._mutex = threading.Lock()
        self._over = False
        self._kept: Map | Disk | None = None
        self._login_anyway = threading.Event()

    # -- one device ---------------------------------------------------------------------------
    def single_path(self) -> Attached:
        """Attach by the first portal that gives a disk; the others are not touched.

        :raises VolumeDeviceNotFound: none did; names portals, LUNs and reasons.
        """
        try:
            for anyway in (False, True):
                if anyway and not self._may_log_in_anyway():
                    break
                for path, state in list(self._states.items()):
                    if state.active:
                        continue  # iscsid was asked the first time
                    found = self._try_alone(path, anyway)
                    if found is not None:
                        attached = scsi_attach.take_disk(self._host, self._call, found.disk)
                        self._finish(attached.kept)
                        return attached
            raise self._not_found()
        except BaseException:
            self._undo()
            raise

    def _try_alone(self, path: IscsiPath, anyway: bool) -> Found | None:
        state = self._states[path] = _PathState(path)
        if anyway:
            self._login_anyway.set()
        patience_s = _ANSWER_S if len(self._states) > 1 else _NOBODY_ANSWERS_S
        worker = self._call.side_by_side({str(path): partial(self._work, state, patience_s)})
        self._call.wait_until(worker.all_ended, what=f"path by {path}", event=worker.news)
        if not worker.all_ended():
            # The thread sees to itself when it ends; the volume is not wanted any more by then.
            raise exception.DeadlineExceeded(what=f"path by {path}", seconds=self._call.limit_s)
        if state.found is None:
            self._leave(self._call, state)  # before the next portal is tried
        return state.found

    # -- many paths ---------------------------------------------------------------------------
    def multipath(self) -> Attached:
        """Attach by all portals and return the map, with whatever paths it has; a disk if there is
        none.

        :raises VolumeDeviceNotFound: no path gave a disk; names portals, LUNs and reasons.
        :raises WrongVolume: the paths lead to different volumes.
        """
        daemon = self._call.side_by_side(
            {"multipathd": partial(multipath.daemon_answers, self._host, self._call)}
        )
        workers = self._call.side_by_side(
            {str(path): partial(self._work, state) for path, state in self._states.items()}
        )
        try:
            attached = self._join_paths(workers, lambda: self._daemon_state(daemon))
        except BaseException:
            self._undo()
            raise
        self._report_missing()
        return attached

    @staticmethod
    def _daemon_state(daemon: SideBySide[bool]) -> bool | None:
        ended = daemon.ended().get("multipathd")
        return None if ended is None else bool(ended.value)

    def _join_paths(self, workers: SideBySide[None], daemon: Callable[[], bool | None]) -> Attached:
        waiting = scsi_volume.MapWait(
            self._host,
            self._call,
            self._disks,
            self._is_busy,
            pending=lambda: not workers.all_ended(),
            daemon=daemon,
            news=workers.news,
        )
        attached = scsi_attach.take_map(self._host, self._call, waiting, self._settings.readiness)
        if attached is None:
            raise self._not_found()
        self._finish(attached.kept)
        return attached

    def _finish(self, kept: Map | Disk) -> None:
        with self._mutex:
            self._over, self._kept = True, kept

    def _disks(self) -> list[Disk]:
        return [state.found.disk for state in self._states.values() if state.found is not None]

    def _is_busy(self) -> bool:
        """Tell whether a path is on its way: its portal answers, or has not had the time to."""
        asked_long = self._call.elapsed_s() >= _QUIET_AFTER_S
        return any(
            self._is_under_way(state)
            or (state.found is None and state.error is None and not (asked_long or state.trouble))
            for state in self._states.values()
        )

    @staticmethod
    def _is_under_way(state: _PathState) -> bool:
        return state.active and state.found is None and state.error is None

    def _report_missing(self) -> None:
        missing = {
            str(path): state.error or exception.BrickException(state.trouble or "still under way")
            for path, state in self._states.items()
            if state.found is None
        }
        if missing:
            LOG.warning(
                "Attached %s without these paths: %s",
                self._volume,
                scsi_attach.describe_failures(missing.items()),
            )

    def _not_found(self) -> exception.VolumeDeviceNotFound:
        return scsi_attach.not_found((path, state.error) for path, state in self._states.items())

    # -- one path -----------------------------------------------------------------------------
    def _work(self, state: _PathState, patience_s: float = _PATIENCE_S) -> None:
        """Bring one path up in its own thread; when the attach is over by then, see to it alone."""
        found: Found | None = None
        error: Exception | None = None
        try:
            found = self._bring_up(state, patience_s)
        except _NotWanted as exc:
            error = exc
        except Exception as exc:  # noqa: BLE001 - a path's thread must not die silently; the attach decides
            LOG.warning("No path by %s: %s", state.path, exc)
            error = exc
        with self._mutex:
            state.found, state.error = found, error
            late = self._over
        if isinstance(error, open_iscsi.LoginUnfinished):
            self._end_unfinished(state)
        elif late:
            self._settle_late(state)

    def _end_unfinished(self, state: _PathState) -> None:
        """End the session that iscsid makes after its log-in was given up, should it make one."""
        target = state.path.target
        call = self._call.later(f"unfinished log-in to {target}", _LATE_LIMIT_S)
        session = call.wait_until(
            lambda: iscsi_sessions.logged_in(self._host, target),
            what=f"session to {target}",
            limit_s=open_iscsi.LOGIN_S,
        )
        if session is not None:
            state.made_session = True
            self._leave(call, state)

    def _bring_up(self, state: _PathState, patience_s: float) -> Found:
        target = state.path.target
        self._reach(state, patience_s)
        state.active = True
        with self._host.locks.held(self._call, [target.lock_name], shared=True):
            session, state.made_session = iscsi_sessions.get_session(
                self._host, self._call, target, self._volume.chap, self._settings.iface
            )
            state.session_was_idle = not state.made_session and not iscsi.is_used(
                self._host.sysfs, session
            )
            with self._call.step(f"find {state.path}") as step:
                found = self._find(session, state.path.lun)
                step.outcome = str(found.disk) if found else "not found"
        if found is not None:
            return found
        if self._over and not self._is_wanted():
            raise _NotWanted
        LOG.warning(
            "LUN %s on iSCSI portal %s not found on sysfs after logging in.",
            state.path.lun,
            target.portal,
        )
        raise exception.VolumeDeviceNotFound(
            device=str(state.path), reason="The target did not show the LUN."
        )

    def _find(self, session: Session, lun: int) -> Found | None:
        sysfs = self._host.sysfs

        def scan() -> None:
            for channel, target in iscsi.targets_of(sysfs, session) or (("-", "-"),):
                self._host.changes.scan(self._call, session.host, str(channel), str(target), lun)

        return scsi_volume.find_or_scan(
            self._host,
            self._call,
            look=lambda: iscsi.find_disk(sysfs, session, lun),
            coming=lambda: iscsi.find_bare(sysfs, session, lun) is not None,
            scan=scan,
            scan_at_once=True,
            attempts=self._settings.attempts,
            enough=lambda: self._over and not self._is_wanted(),
        )

    def _reach(self, state: _PathState, patience_s: float) -> None:
        """Return when there is a usable session, or the portal answers so that one can be made.

        Asked before iscsid is: what iscsid has begun it goes on with for minutes, and nobody can
        stop it.

        :raises TargetPortalNotFound: it did not answer for so long.
        """
        began_s = self._call.elapsed_s()
        target = state.path.target
        while True:
            if iscsi_sessions.logged_in(self._host, target) is not None:
                return
            if not self._settings.probe or self._login_anyway.is_set():
                return
            trouble = self._ask(target.portal.host, target.portal.port)
            if not trouble:
                return
            state.trouble = trouble
            waited_s = self._call.elapsed_s() - began_s
            if self._over and not self._is_wanted():
                raise _NotWanted
            if patience_s >= _NOBODY_ANSWERS_S <= waited_s and self._may_log_in_anyway():
                self._login_anyway.set()
                return
            if waited_s >= patience_s or self._call.remaining_s() <= 0:
                raise exception.TargetPortalNotFound(target_portal=target.portal, reason=trouble)
            self._call.pause(_ASK_AGAIN_S)

    def _ask(self, address: str, port: int) -> str:
        """Return what is wrong with a portal; nothing if it answers."""
        limit_s = self._call.within(_ANSWER_S)
        try:
            if self._host.network.answers(address, port, limit_s):
                return ""
        except OSError as exc:
            return f"It refuses connections ({exc.strerror or exc})."
        return "It does not answer."

    def _may_log_in_anyway(self) -> bool:
        """Tell whether iscsid may be asked though no portal answers us: only if it ends in time."""
        answers = any(state.active or state.found for state in self._states.values())
        return not (answers or self._over) and self._call.remaining_s() > open_iscsi.LOGIN_S

    # -- afterwards ---------------------------------------------------------------------------
    def _is_wanted(self) -> bool:
        kept = self._kept
        if isinstance(kept, Map):
            return multipath.is_there(self._host.sysfs, kept)
        return kept is not None and scsi.is_there(self._host.sysfs, kept)

    def _settle_late(self, state: _PathState) -> None:
        """See to a path that came up after the attach had returned or failed."""
        call = self._call.later(f"late path {state.path}", _LATE_LIMIT_S)
        try:
            with self._host.locks.held(call, self._volume.lock_names):
                if self._is_wanted() and self._belongs(state):
                    LOG.info("Late path %s joined %s", state.path, self._kept)
                    return
                scsi_attach.remove_made(self._host, call, [state.found])
            if state.made_session or (state.active and not state.session_was_idle):
                iscsi_sessions.leave(self._host, call, state.path.target)
        except Exception as exc:  # noqa: BLE001 - nobody is left to whom it could be raised
            LOG.warning(
                "Late path %s could not be cleaned up, leftovers may remain: %s", state.path, exc
            )

    def _belongs(self, state: _PathState) -> bool:
        if state.found is None:
            return False
        kept = self._kept
        try:
            scsi_volume.check_same_volume(
                self._host,
                [state.found.disk, *([kept] if isinstance(kept, Disk) else [])],
                [kept] if isinstance(kept, Map) else [],
            )
        except exception.WrongVolume as exc:
            LOG.error("Late path %s is removed: %s", state.path, exc)
            return False
        return True

    def _undo(self) -> None:
        """Take away what this attempt made; what was there before stays. Never raises."""
        with self._mutex:
            self._over, self._kept = True, None
            states = list(self._states.values())
        call = self._call.later(f"undo {self._call.operation}", _LATE_LIMIT_S)
        with self._call.step("undo"):
            # Scans end now that nobody wants them; only a log-in goes on, and sees to itself then.
            call.wait_until(
                lambda: not any(self._is_under_way(state) for state in states),
                what="paths under way",
                limit_s=_ANSWER_S * 2,
            )
            try:
                scsi_attach.remove_made(self._host, call, [state.found for state in states])
            except Exception as exc:  # noqa: BLE001 - the first cause is what the caller must see
                LOG.warning(
                    "There were errors undoing the attach of %s, leftovers may remain in the "
                    "system: %s",
                    self._volume,
                    exc,
                )
            for state in states:
                if state.found is not None or state.error is not None:
                    self._leave(call, state)

    def _leave(self, call: Call, state: _PathState) -> None:
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
