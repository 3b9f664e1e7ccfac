# SPDX-License-Identifier: Apache-2.0
"""The way of one iSCSI attach: reach the portals, log in, find the disk of the LUN, have the map.

All state of an attempt is in an :class:`Attempt`. Each path comes up in a thread of its own
(:class:`~os_brick.initiator.linux.iscsi_bring_up.BringUp`). A portal that does not answer keeps
nobody: the attach returns when the map can be used by the portals that do, and the thread goes on
for a while; if its path comes up later it joins the map, unless the volume has been detached
meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import (
    iscsi,
    iscsi_bring_up,
    iscsi_sessions,
    multipath,
    open_iscsi,
    scsi_attach,
    scsi_volume,
)
from os_brick.initiator.linux.call import Call, SideBySide
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.iscsi import IscsiPath
from os_brick.initiator.linux.iscsi_bring_up import LATE_LIMIT_S, BringUp, PathState
from os_brick.initiator.linux.iscsi_bring_up import Settings as Settings
from os_brick.initiator.linux.iscsi_volume import IscsiVolume
from os_brick.initiator.linux.multipath import Map
from os_brick.initiator.linux.scsi import Disk
from os_brick.initiator.linux.scsi_attach import Attached
from os_brick.initiator.linux.scsi_volume import Found

LOG = logging.getLogger(__name__)

# A scan that nobody wants any more ends soon; only a log-in goes on.
_SCANS_END_S = 10.0
# How long a late path waits for the volume's locks: its own attach may be just about to return.
_MOMENT_S = 1.0


class Attempt:
    """One attach of one volume. The caller holds the volume's lock."""

    def __init__(self, host: Host, call: Call, volume: IscsiVolume, settings: Settings) -> None:
        self._host = host
        self._call = call
        self._volume = volume
        self._settings = settings
        self._mutex = threading.Lock()
        self._over = False
        self._kept: Map | Disk | None = None
        self._paths = BringUp(
            host,
            call,
            volume,
            settings,
            is_unwanted=lambda: self._over and not self._is_wanted(),
            when_ended=self._settle,
        )

    # -- one device ---------------------------------------------------------------------------
    def single_path(self) -> Attached:
        """Attach by the first portal that gives a disk; the others are not touched.

        :raises VolumeDeviceNotFound: none did; names portals, LUNs and reasons.
        """
        try:
            for anyway in (False, True):
                if anyway and not self._paths.may_log_in_anyway():
                    break
                for path, state in self._by_preference():
                    if state.answered:
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

    def _by_preference(self) -> list[tuple[IscsiPath, PathState]]:
        """Return the paths in the order given, but those first by which the volume is here: whoever
        uses it must not get a second disk of it beside him."""

        def is_new(item: tuple[IscsiPath, PathState]) -> bool:
            path, sysfs = item[0], self._host.sysfs
            try:
                sessions = iscsi.find_sessions(sysfs, path.target)
                return not any(iscsi.find_disk(sysfs, one, path.lun) for one in sessions)
            except OSError:  # its own thread will tell, if it comes to that
                return True

        items = list(self._paths.states.items())
        return sorted(items, key=is_new) if len(items) > 1 else items

    def _try_alone(self, path: IscsiPath, anyway: bool) -> Found | None:
        state = self._paths.begin_anew(path, anyway=anyway)
        others = len(self._paths.states) > 1
        patience_s = iscsi_bring_up.ANSWER_S if others else iscsi_bring_up.NOBODY_ANSWERS_S
        busy_limit_s = iscsi_bring_up.ANSWER_S if others else None
        worker = self._call.side_by_side(
            {str(path): partial(self._paths.work, state, patience_s, busy_limit_s)}
        )
        self._call.wait_until(worker.all_ended, what=f"path by {path}", event=worker.news)
        if not worker.all_ended():
            # The thread sees to itself when it ends; the volume is not wanted any more by then.
            raise exception.DeadlineExceeded(what=f"path by {path}", seconds=self._call.limit_s)
        if state.found is None:
            self._paths.leave(self._call, state)  # before the next portal is tried
        return state.found

    # -- many paths ---------------------------------------------------------------------------
    def multipath(self) -> Attached:
        """Attach by all portals and return the map, with whatever paths it has; a disk if there is
        none.

        :raises VolumeDeviceNotFound: no path gave a disk; names portals, LUNs and reasons.
        :raises WrongVolume: the paths lead to different volumes.
        """
        daemon = self._call.side_by_side(
            {"multipathd": partial(multipath.is_daemon_there, self._host, self._call)}
        )
        workers = self._call.side_by_side(
            {str(path): partial(self._paths.work, state) for path, state in self._states()}
        )
        try:
            attached = self._join_paths(workers, lambda: self._daemon_state(daemon))
        except BaseException:
            self._undo()
            raise
        self._report_missing()
        return attached

    @staticmethod
    def _daemon_state(daemon: SideBySide[bool | None]) -> bool | None:
        """Tell whether multipathd is there; None if that is not known, or it is late."""
        ended = daemon.ended().get("multipathd")
        return None if ended is None else ended.value

    def _join_paths(self, workers: SideBySide[None], daemon: Callable[[], bool | None]) -> Attached:
        waiting = scsi_volume.MapWait(
            self._host,
            self._call,
            self._paths.disks,
            self._paths.is_busy,
            pending=lambda: not workers.all_ended(),
            daemon=daemon,
            news=workers.news,
        )
        attached = scsi_attach.take_map(self._host, self._call, waiting, self._settings.readiness)
        if attached is None:
            raise self._not_found()
        self._finish(attached.kept)
        if attached.map is None:
            self._give_back(attached.kept)
        return attached

    def _give_back(self, kept: Map | Disk) -> None:
        """Take away the disks that targets of other names gave. Never raises.

        The detach would know of them by their map only, and there is none.
        """
        states = {
            str(path): state
            for path, state in self._states()
            if self._volume.is_candidate(path) and state.found and state.found.disk != kept
        }
        if not states:
            return
        call = self._call.later(f"give back paths of {self._volume}", LATE_LIMIT_S)
        try:
            scsi_attach.remove_made(self._host, call, [one.found for one in states.values()])
        except Exception as exc:  # noqa: BLE001 - the attach itself has gone well
            LOG.warning("Paths %s could not be taken away again: %s", ", ".join(states), exc)
        # Log-outs have locks of their own; one that takes long ends without us.
        leaving = call.side_by_side(
            {path: partial(self._paths.leave, call, one) for path, one in states.items()}
        )
        call.wait_until(
            leaving.all_ended, what="log-outs", limit_s=_SCANS_END_S, event=leaving.news, told=True
        )

    def _states(self) -> list[tuple[IscsiPath, PathState]]:
        return list(self._paths.states.items())

    def _finish(self, kept: Map | Disk) -> None:
        with self._mutex:
            self._over, self._kept = True, kept

    def _report_missing(self) -> None:
        missing = {
            str(path): state.error or exception.BrickException(state.trouble or "still under way")
            for path, state in self._states()
            if state.found is None
        }
        if missing:
            LOG.warning(
                "Attached %s without these paths: %s",
                self._volume,
                scsi_attach.describe_failures(missing.items()),
            )

    def _not_found(self) -> exception.VolumeDeviceNotFound:
        return scsi_attach.not_found((path, state.error) for path, state in self._states())

    # -- afterwards ---------------------------------------------------------------------------
    def _is_wanted(self) -> bool:
        return scsi_attach.is_there(self._host, self._kept)

    def _settle(self, state: PathState, found: Found | None, error: Exception | None) -> None:
        """Take what came of a path; see to it here if the attach is over by then."""
        with self._mutex:
            state.found, state.error = found, error
            late = self._over
        if isinstance(error, open_iscsi.LoginUnfinished):
            self._end_unfinished(state)
        elif late:
            self._settle_late(state)

    def _end_unfinished(self, state: PathState) -> None:
        """End the session that iscsid makes after its log-in was given up, should it make one."""
        target = state.path.target
        call = self._call.later(f"unfinished log-in to {target}", LATE_LIMIT_S)
        session = call.wait_until(
            lambda: iscsi_sessions.logged_in(self._host, target),
            what=f"session to {target}",
            limit_s=open_iscsi.LOGIN_S,
        )
        if session is not None:
            state.made_session = True
            self._paths.leave(call, state)

    def _settle_late(self, state: PathState) -> None:
        """See to a path that came up after the attach had returned or failed.

        A volume that somebody attaches or detaches right now is not waited for, as that may be
        waiting for this very path: a later attach brings its own, a detach must leave nothing.
        """
        call = self._call.later(f"late path {state.path}", LATE_LIMIT_S)
        try:
            with self._host.locks.held_if_soon(call, self._volume.lock_names, _MOMENT_S) as alone:
                if alone and self._joins(state):
                    LOG.info("Late path %s joined %s", state.path, self._kept)
                    return
                scsi_attach.remove_made(self._host, call, [state.found])
            if state.made_session or (state.active and not state.session_was_idle):
                iscsi_sessions.leave(self._host, call, state.path.target)
        except Exception as exc:  # noqa: BLE001 - nobody is left to whom it could be raised
            LOG.warning(
                "Late path %s could not be cleaned up, leftovers may remain: %s", state.path, exc
            )

    def _joins(self, state: PathState) -> bool:
        return (
            state.found is not None
            and self._is_wanted()
            # See _give_back.
            and not (isinstance(self._kept, Disk) and self._volume.is_candidate(state.path))
            and scsi_attach.joins(self._host, self._kept, state.found.disk)
        )

    def _undo(self) -> None:
        """Take away what this attempt made; what was there before stays. Never raises."""
        with self._mutex:
            self._over, self._kept = True, None
            states = list(self._paths.states.values())
        call = self._call.later(f"undo {self._call.operation}", LATE_LIMIT_S)
        with self._call.step("undo"):
            # Scans end now that nobody wants them; only a log-in goes on, and sees to itself then.
            call.wait_until(
                lambda: not any(state.is_under_way for state in states),
                what="paths under way",
                limit_s=_SCANS_END_S,
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
                    self._paths.leave(call, state)
