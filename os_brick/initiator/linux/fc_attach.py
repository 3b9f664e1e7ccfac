# SPDX-License-Identifier: Apache-2.0
"""The way of one Fibre Channel attach: find the connected ports, scan the LUN behind each, have the
map.

All state of an attempt is in an :class:`Attempt`. A path whose scan blocks keeps nobody: when the
others give a usable device the attach returns, and the path joins the map when it comes up later,
unless the volume has been detached meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator, Sequence
from functools import partial

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import (
    changes,
    fc_links,
    fc_paths,
    multipath,
    read_only,
    scsi,
    scsi_attach,
    scsi_volume,
)
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.fc_bring_up import BringUp, PathState
from os_brick.initiator.linux.fc_links import LinkNames
from os_brick.initiator.linux.fc_scan import Scanner
from os_brick.initiator.linux.fc_volume import FcVolume
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.multipath import Map
from os_brick.initiator.linux.scsi import Disk
from os_brick.initiator.linux.scsi_attach import Attached, Readiness
from os_brick.initiator.linux.scsi_volume import Found

LOG = logging.getLogger(__name__)

# A scan that blocks is waited for so long where another path has given a disk, or before an undo.
_BLOCKED_S = 10.0
_LATE_LIMIT_S = 300.0
_READ_AGAIN_S = 2.0


class Attempt:
    """One attach of one volume. The caller holds the volume's lock, and closes it thereafter.

    :param link_names: names that udev may give to a path on this platform.
    :param attempts: ``device_scan_attempts``.
    """

    def __init__(
        self,
        host: Host,
        call: Call,
        volume: FcVolume,
        scanner: Scanner,
        link_names: LinkNames,
        *,
        attempts: int,
        readiness: Readiness,
    ) -> None:
        self._host = host
        self._call = call
        self._volume = volume
        self._scanner = scanner
        self._link_names = link_names
        self._attempts = max(1, attempts)
        self._readiness = readiness
        self._paths = BringUp(
            host,
            call,
            volume,
            scanner,
            attempts,
            is_over=lambda: self._over and not self._is_wanted(),
            when_ended=self._path_ended,
        )
        self._mutex = threading.Lock()
        self._over = False
        self._kept: Map | Disk | None = None
        self._closed = threading.Event()
        self._settling = False
        self._before = fc_paths.read_numbered(host.sysfs, volume)

    # -- one device ---------------------------------------------------------------------------
    def single_path(self) -> Attached:
        """Attach and return the first disk that can be read.

        :raises NoFibreChannelVolumeDeviceFound: there is none; names ports, LUNs and reasons.
        :raises WrongVolume: the paths lead to different volumes.
        """
        with self._undone_on_failure():
            self._paths.run()
            self._paths.wait_for_all(self._call, _BLOCKED_S)
            scsi_volume.check_same_volume(self._host, self._paths.disks())
            disk = self._wait_for_readable()
            attached = self._with_link(scsi_attach.take_disk(self._host, self._call, disk))
            self._finish(attached.kept)
            self._compare(attached)
        self._report_missing()
        return attached

    def _wait_for_readable(self) -> Disk:
        for number in range(1, self._attempts + 1):
            disk = self._first_readable()
            if disk is not None:
                return disk
            if not self._paths.disks() or number == self._attempts:
                break
            self._call.pause(_READ_AGAIN_S)
            self._paths.start_new()
            self._paths.wait_for_all(self._call, _READ_AGAIN_S)
        raise self._not_found()

    def _first_readable(self) -> Disk | None:
        """Return the first disk that a block can be read from: one that is there may be dead (bug
        1685969)."""
        for disk in self._paths.disks():
            try:
                if scsi.state(self._host.sysfs, disk) == "running":
                    self._host.changes.read_block(self._call, disk)
                    return disk
            except changes.FAILURES as exc:
                LOG.warning("%s cannot be read: %s", disk, exc)
        return None

    # -- many paths ---------------------------------------------------------------------------
    def multipath(self) -> Attached:
        """Attach and return the map, with whatever paths it has; if there is none, the first disk
        that can be read.

        :raises NoFibreChannelVolumeDeviceFound: there is neither; names ports, LUNs and reasons.
        :raises WrongVolume: the paths lead to different volumes.
        """
        daemon = self._call.side_by_side(
            {"multipathd": partial(multipath.is_daemon_there, self._host, self._call)}
        )

        def answers() -> bool | None:
            ended = daemon.ended().get("multipathd")
            return None if ended is None else ended.value

        with self._undone_on_failure():
            self._paths.run()
            waiting = scsi_volume.MapWait(
                self._host,
                self._call,
                self._paths.disks,
                self._paths.is_busy,
                pending=self._paths.is_busy,
                daemon=answers,
                news=self._paths.news,
            )
            attached = scsi_attach.take_map(
                self._host, self._call, waiting, self._readiness, self._choose
            )
            if attached is None:
                raise self._not_found()
            self._see_writable(attached)
            attached = self._with_link(attached)
            self._finish(attached.kept)
            self._compare(attached)
        self._report_missing()
        return attached

    def _choose(self, _disks: Sequence[Disk]) -> Disk:
        return self._wait_for_readable()

    def _see_writable(self, attached: Attached) -> None:
        """Give a device that came up read-only the time to become writable (bug 1495701)."""
        if self._volume.read_only:
            return
        try:
            read_only.wait_until_writable(self._host, self._call, attached.kept.name)
        except exception.BlockDeviceReadOnly:
            LOG.warning("Block device %s is still read-only. Continuing anyway.", attached.path)

    def _with_link(self, attached: Attached) -> Attached:
        """Return the same with udev's link for its path: the kernel name may be another device's
        after a reboot (bug 1897787)."""
        if isinstance(attached.kept, Map):
            link = fc_links.wait_for_map_link(self._host, self._call, attached.kept)
        else:
            link = fc_links.wait_for_disk_link(
                self._host, self._call, self._link_names, attached.kept, self._paths.found()
            )
        if link is None:
            LOG.warning("udev has made no link to %s, its kernel name is used", attached.path)
            return attached
        return dataclasses.replace(attached, path=link)

    # -- afterwards ---------------------------------------------------------------------------
    def close(self) -> None:
        """Tell that the caller has let go of the volume's lock."""
        self._closed.set()

    def _finish(self, kept: Map | Disk | None) -> None:
        with self._mutex:
            self._over, self._kept = True, kept

    def _compare(self, attached: Attached) -> None:
        """See that what is handed out is still there: its kernel name may be another device's by
        now. Compare the paths that have come up while it was made ready; those that come later are
        compared when they come."""
        if not scsi_attach.is_there(self._host, attached.kept):
            raise exception.VolumeDeviceNotFound(
                device=str(attached.kept), reason="It was removed while it was made ready."
            )
        maps = [attached.map] if attached.map is not None else []
        scsi_volume.check_same_volume(self._host, self._paths.disks(), maps)

    def _is_wanted(self) -> bool:
        return scsi_attach.is_there(self._host, self._kept)

    def _path_ended(self, state: PathState) -> None:
        """See to a path that came up after the attach had returned or failed; its thread calls
        this, which has the path in hand still.

        It is removed if nobody wants it any more. So it is if another call for this volume is under
        way by then: that one does not know of it. An attach that waits for this very path has the
        volume's locks, so these are not waited for.
        """
        with self._mutex:
            if not self._over or state.found is None:
                return
        call = self._call.later(f"late path {state.path}", _LATE_LIMIT_S)
        disk = state.found.disk
        try:
            call.wait_until(self._closed.is_set, what="end of the attach")
            with self._in_turn(call), self._volume_is_free() as free:
                wanted = free and self._is_wanted()
                if wanted and scsi_attach.joins(self._host, self._kept, disk):
                    LOG.info("Late path %s joined %s", state.path, self._kept)
                elif self._is_ours(disk):
                    self._remove_late(call, disk, free)
        except Exception as exc:  # noqa: BLE001 - nobody is left to whom it could be raised
            LOG.warning(
                "Late path %s could not be cleaned up, leftovers may remain: %s", state.path, exc
            )

    @contextlib.contextmanager
    def _in_turn(self, call: Call) -> Iterator[None]:
        """See to one late path at a time: they would keep each other from the volume's lock."""

        def take() -> bool:
            with self._mutex:
                mine = not self._settling
                self._settling = True
            return mine

        call.wait_until(take, what="other late paths")
        try:
            yield
        finally:
            with self._mutex:
                self._settling = False

    @contextlib.contextmanager
    def _volume_is_free(self) -> Iterator[bool]:
        with contextlib.ExitStack() as stack:
            yield all(
                stack.enter_context(self._host.locks.tried(name))
                for name in sorted(set(self._volume.lock_names))
            )

    def _remove_late(self, call: Call, disk: Disk, volume_is_free: bool) -> None:
        LOG.info("Late path %s is not wanted any more", disk)
        if volume_is_free:
            scsi_attach.remove_made(self._host, call, [Found(disk, was_there=False)])
        else:
            scsi_attach.remove_path(self._host, call, disk)
        if self._kept is None:
            self._scanner.undo(call)

    # -- undo ---------------------------------------------------------------------------------
    @contextlib.contextmanager
    def _undone_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._undo()
            raise

    def _undo(self) -> None:
        """Take away what this attempt made; what was there before stays. Never raises."""
        self._finish(None)
        call = self._call.later(f"undo {self._call.operation}", _LATE_LIMIT_S)
        with self._call.step("undo"):
            # Waits end now that nobody wants a disk; only a scan that blocks goes on.
            self._paths.wait_for_all(call, _BLOCKED_S)
            try:
                scsi_attach.remove_made(self._host, call, self._made())
            except Exception as exc:  # noqa: BLE001 - the first cause is what the caller must see
                LOG.warning(
                    "There were errors undoing the attach of %s, leftovers may remain in the "
                    "system: %s",
                    self._volume,
                    exc,
                )
            self._scanner.undo(call)

    def _made(self) -> list[Found]:
        at_address = fc_paths.find_devices(self._host.sysfs, self._paths.read_ways().meant)
        return [
            Found(disk, was_there=not self._is_ours(disk))
            for disk in dict.fromkeys((*at_address, *self._paths.disks()))
        ]

    def _is_ours(self, disk: Disk) -> bool:
        was_there = (disk.hctl, disk.instance) in self._before
        return not was_there and self._scanner.may_have_made(disk)

    # -- what to say --------------------------------------------------------------------------
    def _report_missing(self) -> None:
        told = self._describe_failures()
        if told:
            LOG.warning("Attached %s without these paths: %s", self._volume, told)

    def _describe_failures(self) -> str:
        """Return what became of the paths that gave no disk, for people. Never raises."""
        try:
            return scsi_attach.describe_failures(self._paths.failures())
        except OSError as exc:
            return f"The host cannot be looked at: {exc}"

    def _not_found(self) -> exception.NoFibreChannelVolumeDeviceFound:
        told = "; ".join(f"{disk} cannot be read" for disk in self._paths.disks())
        told = told or self._describe_failures()
        if not told:
            ports = ", ".join(f"0x{wwpn}" for wwpn in self._volume.wwpns)
            told = f"None of its target ports ({ports}) is known here: check the zoning"
        LOG.error("Fibre Channel volume device not found. %s", told)
        return exception.NoFibreChannelVolumeDeviceFound(reason=f"{told}.")
