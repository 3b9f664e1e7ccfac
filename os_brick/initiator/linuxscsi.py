# SPDX-License-Identifier: Apache-2.0
"""The SCSI helper that services and connectors outside this library know.

A door: what happens is in :mod:`os_brick.initiator.linux`. A *device name* is a kernel name without
``/dev/`` (``"sda"``); where a method takes a path, it says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from oslo_config import cfg
from oslo_log import log as logging

from os_brick import exception, executor, initiator, utils
from os_brick.initiator.linux import (
    block,
    iscsi,
    multipath,
    multipath_listing,
    multipath_lookup,
    nodes,
    read_only,
    scsi,
    scsi_removal,
    scsi_resize,
    scsi_traces,
    scsi_volume,
    wwn,
)
from os_brick.initiator.linux.call import Call, public_call
from os_brick.initiator.linux.doors import HasHost
from os_brick.initiator.linux.multipath import Map
from os_brick.initiator.linux.scsi import Disk
from os_brick.initiator.linux.scsi_removal import Removal

LOG = logging.getLogger(__name__)

MULTIPATH_ERROR_REGEX = initiator.MULTIPATH_ERROR_REGEX
MULTIPATH_WWID_REGEX = re.compile(r"\((?P<wwid>.+)\)")
MULTIPATH_DEVICE_ACTIONS = list(multipath_listing.ACTIONS)
MULTIPATHD_RESIZE_TIMEOUT = scsi_resize.RESIZE_LIMIT_S

_PATH_WAIT_S = 3.0
_SHOW_PATHS_LIMIT_S = 5.0
_WRITE_LIMIT_S = 120.0
_RECONFIGURE_LIMIT_S = 120.0


class LinuxSCSI(HasHost):
    """SCSI devices and multipath maps of this host.

    :param root_helper: see :class:`os_brick.executor.Executor`.
    :param execute: runs all programs, through which then every change of the host goes.
    :param host: the doors to the host, for tests (:class:`~os_brick.initiator.linux.host.Host`).

    Each method ends within ``[os_brick] call_timeout`` seconds. Every one of them raises
    :class:`OSError` where the host could not be looked at.
    """

    #: Kinds of identity as the kernel writes them in ``device/wwid``, and udev's digit for each.
    WWN_TYPES: ClassVar[dict[str, str]] = dict(wwn.KINDS)

    def _call(self, operation: str) -> Call:
        return Call(operation, self.host.clock, cfg.CONF.os_brick.call_timeout)

    def _disks(self, names: Iterable[str]) -> list[Disk]:
        found = (scsi.read_disk_named(self.host.sysfs, _name(name)) for name in names)
        return list(dict.fromkeys(disk for disk in found if disk is not None))

    def _map(self, text: str) -> Map:
        found = multipath_lookup.find_map(self.host, text)
        if found is None:
            raise exception.VolumeDeviceNotFound(device=text, reason="There is no such map.")
        return found

    # -- names and numbers -------------------------------------------------------------------------
    def get_name_from_path(self, path: str) -> str | None:
        """Return ``/dev/<name>`` of the device that a path or link leads to; None if to none."""
        return nodes.real_node(self.host, path)

    def get_device_info(self, device: str) -> dict[str, str | None]:
        """Return the address of a disk.

        :param device: path or name.
        :returns: ``{"device": …, "host": "3", "channel": "0", "id": "0", "lun": "1"}``; the values
            are None if there is no such SCSI disk.
        """
        name = nodes.kernel_name(self.host, f"/dev/{_name(device)}") or _name(device)
        disk = scsi.read_disk_named(self.host.sysfs, name)
        if disk is None:
            return {"device": device, "host": None, "channel": None, "id": None, "lun": None}
        return {"device": device, **_address(disk.hctl)}

    def process_lun_id(self, lun_ids: Any) -> Any:
        """Return a LUN, or a list of them, as udev's by-path names spell it.

        :param lun_ids: number or text of one, or a list of them.
        :returns: below 256 the number, else text such as ``"0x0100000000000000"``.
        :raises InvalidParameterValue: it is no LUN.
        """
        if isinstance(lun_ids, (list, tuple)):
            return [self.process_lun_id(lun) for lun in lun_ids]
        lun = scsi.lun_number(lun_ids)
        spelt = scsi.lun_for_by_path(lun)
        return lun if spelt == str(lun) else spelt

    @staticmethod
    def lun_for_addressing(lun: int, addressing_mode: str | None = None) -> int:
        """Return the number under which the kernel knows a LUN of an array.

        :param addressing_mode: one of ``os_brick.constants.SCSI_ADDRESSING_MODES``.
        :raises InvalidParameterValue: unknown mode, or a LUN that does not fit it.
        """
        return scsi.lun_for_addressing(scsi.lun_number(lun), addressing_mode)

    def get_device_size(self, device: str) -> int | None:
        """Return the size of a device (a path) in bytes; None if it cannot be told."""
        return utils.get_device_size(self, device)

    # -- identity ----------------------------------------------------------------------------------
    def get_scsi_wwn(self, path: str) -> str:
        """Return the name under which udev and multipath know the volume at a path.

        From the pages that the kernel keeps, so that a dead path does not matter.

        :returns: empty text if it has none.
        """
        name = nodes.kernel_name(self.host, path)
        if name is None:
            return ""
        one = multipath.read_map(self.host.sysfs, name)
        return one.wwid if one is not None else wwn.find_wwn(self.host, [name])

    def get_sysfs_wwid(self, device_names: Iterable[str]) -> str:
        """Return the preferred identity of the first disk that tells one; empty if none does."""
        return wwn.read_identity(self.host, map(_name, device_names)).wwid

    def get_sysfs_wwn(self, device_names: Iterable[str], mpath: str | None = None) -> str:
        """Return the name under which udev and multipath know a volume; empty if it has none.

        :param mpath: name of its map (``"dm-3"``), if it has one.
        """
        return wwn.find_wwn(self.host, map(_name, device_names), mpath and _name(mpath))

    # -- scanning ----------------------------------------------------------------------------------
    def echo_scsi_command(self, path: str, content: str) -> None:
        """Write text to a file of sysfs as root.

        :raises ProcessExecutionError: it could not be written.
        """
        call = self._call(f"Write to {path}")
        self.host.programs.run(
            call, "tee", "-a", path, limit_s=_WRITE_LIMIT_S, stdin=content
        ).check()

    def get_hctl(self, session: int | str, lun: int | str) -> tuple[str, str, str, Any] | None:
        """Return (host, channel, target, lun) for an iSCSI session's LUN; None without session.

        :returns: texts, ``"-"`` for channel and target while the session has no LUN; ``lun`` as it
            was given.
        """
        found = iscsi.read_session(self.host.sysfs, int(session))
        if found is None:
            return None
        for channel, target in iscsi.targets_of(self.host.sysfs, found):
            return str(found.host), str(channel), str(target), lun
        return str(found.host), "-", "-", lun

    def device_name_by_hctl(self, session: int | str, hctl: Sequence[Any]) -> str | None:
        """Return the disk at an address of an iSCSI session; None if there is none.

        :param hctl: (host, channel, target, lun); ``"-"`` for any channel or target.
        """
        found = iscsi.read_session(self.host.sysfs, int(session))
        if found is None:
            return None
        host, channel, target, lun = map(str, hctl)
        disk = iscsi.find_disk(self.host.sysfs, found, scsi.lun_number(lun))
        if disk is None:
            return None
        here = (str(disk.hctl.host), str(disk.hctl.channel), str(disk.hctl.target))
        wanted = zip((host, channel, target), here, strict=True)
        return disk.name if all(want in ("-", have) for want, have in wanted) else None

    def scan_iscsi(
        self, host: int | str, channel: str = "-", target: str = "-", lun: int | str = "-"
    ) -> None:
        """Have a SCSI host look for a LUN; ``"-"`` stands for any.

        :raises OSError: what the kernel answered; or ProcessExecutionError.
        """
        if lun == "-":
            path = self.host.sysfs.path("class/scsi_host", f"host{host}", "scan")
            self.echo_scsi_command(path, f"{channel} {target} {lun}")
            return
        call = self._call(f"Scan of host{host}")
        self.host.changes.scan(call, int(host), str(channel), str(target), scsi.lun_number(lun))

    # -- removal -----------------------------------------------------------------------------------
    def remove_scsi_device(
        self,
        device: str,
        force: bool = False,
        exc: exception.ExceptionChainer | None = None,
        flush: bool = True,
    ) -> None:
        """Remove one disk; nothing happens if it is not there.

        :param device: its path, ``"/dev/sda"``.
        :param force: remove it though its data could not be written out.
        :param exc: takes what failed, with ``force``.
        :param flush: write its data out before.
        :raises DeviceInUse: somebody uses it (without force).
        :raises ProcessExecutionError: its data is not known to be on the storage (without force).
        :raises VolumePathNotRemoved: it is still there.
        """
        disks = tuple(self._disks([device]))
        written = tuple(disk.name for disk in disks) if flush else ()
        with public_call(f"Removal of {device}", *self._limits()) as call:
            self._carry_out(call, Removal(disks, (), written), force, exc)

    def remove_connection(
        self,
        devices_names: Iterable[str],
        force: bool = False,
        exc: exception.ExceptionChainer | None = None,
        path_used: str | None = None,
        was_multipath: bool = False,
        *,
        is_multipath: bool | None = None,
    ) -> str | None:
        """Remove a volume's map and disks.

        :param devices_names: its disks.
        :param force: go on after failures, which ``exc`` takes.
        :param path_used: the path that the caller used. It can only add to what is written out.
        :param was_multipath: not needed, as what is there tells; nor is ``is_multipath``, of old.
        :returns: name of the map whose data could not be written out (with force), else None.
        :raises DeviceInUse: somebody uses the volume (without force); nothing was changed.
        :raises ProcessExecutionError: its data is not known to be on the storage (without force).
        """
        disks = self._disks(devices_names)
        if not disks:
            return None
        errors = exception.ExceptionChainer() if exc is None else exc
        removal = scsi_removal.plan(self.host, disks, path_used)
        identities = [scsi.read_identity(self.host.sysfs, disk) for disk in removal.disks]
        with public_call(f"Removal of {removal}", *self._limits()) as call:
            flushed = self._carry_out(call, removal, force, errors)
            with errors.context(force, "Removing dangling links failed"):
                scsi_traces.unlink_dangling(self.host, call, identities)
            with errors.context(force, "multipathd has not let go of all paths"):
                scsi_traces.forget(self.host, call, removal)
        return removal.maps[0].label if removal.maps and not flushed else None

    def _carry_out(
        self, call: Call, removal: Removal, force: bool, exc: exception.ExceptionChainer | None
    ) -> bool:
        return scsi_removal.carry_out(
            self.host,
            call,
            removal,
            force=force,
            errors=exception.ExceptionChainer() if exc is None else exc,
            flush_limit_s=cfg.CONF.os_brick.flush_timeout,
        )

    def _limits(self) -> tuple[Any, float]:
        return self.host.clock, cfg.CONF.os_brick.call_timeout

    def wait_for_volumes_removal(self, volumes_names: Iterable[str]) -> None:
        """Return when the disks of these names are gone, and remove udev's links to them.

        :raises VolumePathNotRemoved: some are still there after 40 s.
        """
        names = [_name(name) for name in volumes_names]
        call = self._call("Wait for removal")
        try:
            scsi_removal.wait_until_gone(self.host, call, self._disks(names))
        finally:
            scsi_traces.unlink_dangling_to(self.host, call, names)

    @staticmethod
    def requires_flush(path: str, path_used: str | None, was_multipath: bool) -> bool:
        """Tell whether existing callers write out a single path before they remove it.

        This library itself writes out more: see :func:`os_brick.initiator.linux.scsi_removal.plan`.
        """
        if not path_used:
            return False
        used = os.path.realpath(path_used)
        if used == os.path.realpath(path):
            return True
        # Decrypted volumes are used through a mapping below /dev/mapper.
        return not was_multipath and os.path.dirname(used) != "/dev"

    # -- write-out ---------------------------------------------------------------------------------
    def flush_device_io(self, device: str) -> None:
        """Write a device's dirty pages to the storage; a missing device is no error.

        Once: the kernel reports a loss to one fsync(2) only, a second one would hide it.

        :param device: its path.
        :raises ProcessExecutionError: the data is not known to be on the storage.
        """
        if nodes.real_node(self.host, device) is None:
            return
        with public_call(f"Write-out of {device}", *self._limits()) as call:
            block.sync(self.host, call, device, cfg.CONF.os_brick.flush_timeout)

    def flush_multipath_device(self, device_map_name: str) -> None:
        """Write out and remove a map; nothing happens if it is not there.

        :param device_map_name: its name for the tools; its wwid and its path do as well.
        :raises DeviceInUse: somebody uses it; nothing was changed.
        :raises ProcessExecutionError: its data is not known to be on the storage.
        """
        one = multipath_lookup.find_map(self.host, device_map_name)
        if one is not None:
            with public_call(f"Removal of {one}", *self._limits()) as call:
                self._carry_out(call, Removal((), (one,), (one.name,)), False, None)

    # -- waiting -----------------------------------------------------------------------------------
    def wait_for_path(self, volume_path: str) -> None:
        """Return when a path is there.

        :raises VolumeDeviceNotFound: it is not after 3 s.
        """
        call = self._call(f"Wait for {volume_path}")
        if not call.wait_until(
            lambda: nodes.real_node(self.host, volume_path), what="path", limit_s=_PATH_WAIT_S
        ):
            raise exception.VolumeDeviceNotFound(device=volume_path)

    def wait_for_rw(self, wwn: str, device_path: str) -> None:
        """Return when a volume can be written to: its device, its map and all paths of that.

        :param wwn: its name for multipath, for callers whose path is not there (yet).
        :param device_path: path of its map or disk.
        :raises BlockDeviceReadOnly: it cannot, after 15 s.
        """
        name = nodes.kernel_name(self.host, device_path)
        if name is None:
            one = multipath_lookup.find_map(self.host, wwn)
            name = None if one is None else one.name
        if name is None:
            LOG.debug("Neither %s nor a map of %s is there to be looked at", device_path, wwn)
            return
        read_only.wait_until_writable(self.host, self._call(f"Wait to write {name}"), name)

    def wait_for_mpath_device(self, mpath: str) -> None:
        """Return when multipath's path checkers find a map usable.

        :param mpath: its kernel name, ``"dm-3"``.
        :raises ProcessExecutionError: they do not, after ``wait_mpath_device_attempts`` tries.
        """
        options = cfg.CONF.os_brick
        scsi_volume.check_ready_for_io(
            self.host,
            self._call(f"Wait for {mpath}"),
            self._map(mpath),
            options.wait_mpath_device_attempts,
            options.wait_mpath_device_interval,
        )

    # -- multipath: finding ------------------------------------------------------------------------
    @staticmethod
    def is_multipath_running(
        root_helper: str | None,
        execute: executor.ExecuteFunction | None = None,
        *,
        enforce_multipath: bool = False,
    ) -> bool:
        """Tell whether multipathd answers.

        :param enforce_multipath: raise if it does not.
        :raises ProcessExecutionError: it does not, and ``enforce_multipath`` is set.
        """
        helper = LinuxSCSI(root_helper, execute)
        call = helper._call("Is multipathd running")
        if not enforce_multipath:
            return multipath.daemon_answers(helper.host, call)
        status = multipath.daemon_status(helper.host, call)
        if status.code != 0:
            LOG.error("multipathd is not running: exit code %s", status.code)
        return multipath.says_running(status.check())

    def get_dm_name(self, dm: str) -> str:
        """Return a mapping's name for the tools; empty if it cannot be told.

        :param dm: its kernel name, ``"dm-3"``.
        """
        try:
            return self.host.sysfs.text("block", _name(dm), "dm/name")
        except OSError as exc:
            LOG.debug("The name of %s cannot be read: %s", dm, exc)
            return ""

    def find_sysfs_multipath_dm(self, device_names: Iterable[str]) -> str | None:
        """Return the kernel name of the multipath map on one of these devices, or None."""
        for name in device_names:
            one = multipath.find_map_on(self.host.sysfs, _name(name))
            if one is not None:
                return one.name
        return None

    def find_multipath_device_path(self, wwn: str) -> str | None:
        """Return a path of the map of a wwid, waiting 6 s at most; None if it does not come."""
        call = self._call(f"Find map {wwn}")
        found = multipath_lookup.wait_for_map_path(self.host, call, wwn)
        if found is None:
            LOG.warning("couldn't find a valid multipath device path for %s", wwn)
        return found

    def find_multipath_device(self, device: str) -> dict[str, Any] | None:
        """Return the map over a device as ``multipath -l`` lists it; None if there is none.

        :param device: a path; links are followed.
        :returns: ``{"device": "/dev/mapper/…", "id": wwid, "name": …, "devices": [{"device":
            "/dev/sdk", "host": "3", "channel": "0", "id": "0", "lun": "4"}, …]}``.
        :raises CommandExecutionFailed: the program failed.
        """
        call = self._call(f"Find map over {device}")
        found = multipath_lookup.list_map(self.host, call, device)
        if found is None:
            return None
        return {
            "device": f"/dev/mapper/{found.name}",
            "id": found.wwid,
            "name": found.name,
            "devices": [{"device": f"/dev/{disk}", **_address(hctl)} for disk, hctl in found.paths],
        }

    def multipath_show_paths(self, fmt: str) -> str:
        """Return what multipathd says of all paths, in a format of its own (``"%d %i"``)."""
        words = ("multipathd", "show", "paths", "raw", "format", fmt)
        call = self._call("Show paths")
        return self.host.programs.run(call, *words, limit_s=_SHOW_PATHS_LIMIT_S).out

    # -- multipath: asking the daemon --------------------------------------------------------------
    def multipath_add_wwid(self, wwid: str) -> bool:
        """Have a volume be multipathed from its first path on; tell whether it is noted."""
        return multipath.remember_wwid(self.host, self._call(f"Remember {wwid}"), wwid)

    def multipath_add_path(self, realpath: str) -> bool:
        """Have multipathd consider a path, ``"/dev/sda"``; tell whether it took it."""
        disks = self._disks([realpath])
        call = self._call(f"Add path {realpath}")
        return bool(disks) and multipath.add_path(self.host, call, disks[0]).out.strip() == "ok"

    def multipath_del_path(self, realpath: str) -> bool:
        """Have multipathd forget a path, ``"/dev/sda"``; tell whether it did."""
        return multipath.del_path(self.host, self._call(f"Delete path {realpath}"), realpath)

    def multipath_del_map(self, mpath: str) -> None:
        """Remove a map whose paths are gone, with whatever it still holds.

        :param mpath: kernel name, name for the tools, or path; nothing happens if it is not there.
        :raises DeviceInUse: it is still open.
        """
        one = multipath_lookup.find_map(self.host, mpath)
        if one is not None:
            scsi_removal.drop_map(self.host, self._call(f"Removal of {one}"), one)

    def multipath_reconfigure(self) -> str:
        """Have multipathd read its configuration anew: all maps of the host are touched.

        This library never does so by itself.

        :returns: what it said.
        :raises ProcessExecutionError: it failed.
        """
        call = self._call("Reconfigure multipathd")
        words = ("multipathd", "reconfigure")
        return self.host.programs.run(call, *words, limit_s=_RECONFIGURE_LIMIT_S).check().out

    def multipath_resize_map(self, dm_path: str) -> None:
        """Have multipathd give a map the size of its paths.

        :param dm_path: its path, ``"/dev/dm-3"``; its name or wwid do as well.
        :raises ProcessExecutionError: it could not, or was busy for 120 s.
        """
        call = self._call(f"Resize {dm_path}")
        scsi_resize.ask_daemon(self.host, call, self._map(dm_path))

    def wait_multipathd_remove_paths(self, existing_devices: Iterable[str]) -> None:
        """See that multipathd monitors none of these removed disks; tell it to stop if it does.

        A name that is a disk's again is left alone: it is another volume's by now.

        :raises MultipathdPathsNotRemoved: it monitors some of them still.
        """
        names = {_name(name) for name in existing_devices}
        scsi_traces.see_let_go(
            self.host,
            self._call("Wait for multipathd"),
            lambda known: {
                (name, hctl)
                for name, hctl in known
                if name in names and not self.host.sysfs.exists("block", name)
            },
        )

    # -- size --------------------------------------------------------------------------------------
    def extend_volume(self, volume_paths: Iterable[str], use_multipath: bool = False) -> int | None:
        """Have a volume's devices take their new size.

        :param volume_paths: paths or links of all its disks.
        :param use_multipath: not needed: a map that is there is resized.
        :returns: size of the map, or without a map of the disks, in bytes; None without paths.
        :raises BrickException: not every path answers that is needed, or the sizes do not agree.
        :raises ProcessExecutionError: multipathd could not resize the map.
        """
        paths = tuple(volume_paths)
        if not paths:
            return None
        with public_call(f"Extend of {', '.join(paths)}", *self._limits()) as call:
            return scsi_resize.extend_paths(self.host, call, paths)


def _name(device: str) -> str:
    """Return a kernel name given as such or as ``/dev/<name>``."""
    return device.removeprefix("/dev/")


def _address(hctl: scsi.Hctl) -> dict[str, str]:
    return {
        "host": str(hctl.host),
        "channel": str(hctl.channel),
        "id": str(hctl.target),
        "lun": str(hctl.lun),
    }
