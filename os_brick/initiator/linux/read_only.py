# SPDX-License-Identifier: Apache-2.0
"""Volumes that come up read-only though they should not (bug 1495701).

An array may write-protect a LUN for its first moments, and a map that was made meanwhile stays
read-only. What stays so is often the secondary side of a replication, or reserved by another host.
"""

from __future__ import annotations

from functools import partial

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import multipath, scsi
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host

LOG = logging.getLogger(__name__)

_TRIES = 5


def read_only_devices(host: Host, name: str) -> list[str]:
    """Return which of a volume's devices are read-only: the device itself, its map, their paths.

    :param name: kernel name of a disk or a map.
    :raises OSError: the host could not be looked at.
    """
    one = multipath.read_map(host.sysfs, name) or multipath.find_map_on(host.sysfs, name)
    names = {name: None}
    if one is not None:
        names[one.name] = None
        names.update((disk.name, None) for disk in multipath.read_members(host.sysfs, one))
    return [device for device in names if host.sysfs.text("block", device, "ro") == "1"]


def wait_until_writable(host: Host, call: Call, name: str) -> None:
    """Return when none of a volume's devices is read-only.

    Its read-only paths are scanned anew, and multipathd is asked to load the map anew once all of
    them can be written to: this map alone, never all of the host (bug 1623700).

    :param name: kernel name of a disk or a map.
    :raises BlockDeviceReadOnly: some still are after 5 tries, with pauses of 1, 2, 4 and 8 s.
    """
    for attempt in range(1, _TRIES + 1):
        found = read_only_devices(host, name)
        if found:
            _refresh(host, call, found)
            found = read_only_devices(host, name)
        if not found:
            return
        if attempt < _TRIES:
            call.wait_until(
                lambda: not read_only_devices(host, name),
                what=f"end of read-only {', '.join(found)}",
                limit_s=2.0 ** (attempt - 1),
            )
    LOG.warning(
        "%s cannot be written to. Such a volume often is the secondary side of a replication, or "
        "reserved by another host",
        ", ".join(found),
    )
    raise exception.BlockDeviceReadOnly(device=f"/dev/{name}")


def _refresh(host: Host, call: Call, read_only: list[str]) -> None:
    """Have the kernel, then multipathd, look at the write protection again."""
    disks = [scsi.read_disk_named(host.sysfs, name) for name in read_only]
    tasks = {
        str(disk): partial(host.changes.rescan, call, disk) for disk in disks if disk is not None
    }
    for name, outcome in call.each(tasks, what="rescan of the paths").items():
        if outcome.error is not None:
            LOG.warning("Rescan of %s failed: %s", name, outcome.error)
    for name in read_only:
        one = multipath.read_map(host.sysfs, name)
        members = multipath.read_members(host.sysfs, one) if one is not None else []
        if one is not None and not any(
            host.sysfs.text("block", disk.name, "ro") == "1" for disk in members
        ):
            multipath.reload_map(host, call, one)
