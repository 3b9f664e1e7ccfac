# SPDX-License-Identifier: Apache-2.0
"""Any block device: its size, its users, and the write-out of its dirty pages."""

from __future__ import annotations

from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.sysfs import Tree

SECTOR_BYTES = (
    512  # of sysfs "size", whatever the device's own block size (sysfs-block documentation)
)
# kpartx's and multipath's mappings of a map's partitions; `multipath -f` removes them with the map.
_PARTITION_OF_MAP = "part"
# In /sys/block/<disk>/stat (Documentation/block/stat.rst): number of write requests completed.
_WRITES_FIELD = 4


def read_size(sysfs: Tree, name: str) -> int | None:
    """Return a device's size in bytes; None if it is gone."""
    sectors = sysfs.number("block", name, "size")
    return None if sectors is None else sectors * SECTOR_BYTES


def was_written(sysfs: Tree, name: str) -> bool:
    """Tell whether a write to a disk was ever completed or failed; True if that cannot be said."""
    return read_writes(sysfs, name) != 0


def read_writes(sysfs: Tree, name: str) -> int | None:
    """Return how many writes to a device were completed or failed; None if that cannot be said."""
    fields = sysfs.text("block", name, "stat").split()
    if len(fields) <= _WRITES_FIELD or not fields[_WRITES_FIELD].isdecimal():
        return None
    return int(fields[_WRITES_FIELD])


def partitions(sysfs: Tree, name: str) -> list[str]:
    """Return the kernel names of a disk's partitions."""
    return [
        entry
        for entry in sysfs.names("block", name)
        if entry.startswith(name) and sysfs.exists("block", name, entry, "partition")
    ]


def is_partition_mapping(sysfs: Tree, name: str) -> bool:
    """Tell whether a mapping is a partition of a multipath map."""
    uuid = sysfs.text("block", name, "dm/uuid")
    return uuid.startswith(_PARTITION_OF_MAP) and "-mpath-" in uuid


def read_users(host: Host, *names: str) -> list[str]:
    """Return who has devices in use, as sysfs and the mount table show it; readable for people.

    Mappings, RAID arrays and mounts on the device itself, on its partitions and on mappings of its
    partitions count. A multipath map on a disk does not: it is part of the volume.
    """
    mounted = host.proc.text("self/mountinfo") if names else ""
    return [user for name in names for user in _users(host.sysfs, mounted, name)]


def _users(sysfs: Tree, mounted: str, name: str) -> list[str]:
    users: list[str] = []
    for part in (name, *partitions(sysfs, name)):
        where = ("class/block", part)
        users.extend(_mounts(mounted, sysfs.text(*where, "dev"), part))
        for holder in sysfs.names(*where, "holders"):
            if sysfs.text("block", holder, "dm/uuid").startswith("mpath-"):
                continue
            if is_partition_mapping(sysfs, holder):
                users.extend(_users(sysfs, mounted, holder))
            else:
                label = sysfs.text("block", holder, "dm/name") or holder
                users.append(f"{part} is held by {holder} ({label})")
    return users


def count_partition_mappings(sysfs: Tree, name: str) -> int:
    """Return how many partition mappings hold a map open."""
    holders = sysfs.names("block", name, "holders")
    return sum(is_partition_mapping(sysfs, holder) for holder in holders)


def _mounts(mounted: str, number: str, part: str) -> list[str]:
    """Return the mounts of a device, from the mount table of this process (proc(5), mountinfo)."""
    found = []
    for line in mounted.splitlines():
        if number not in line and part not in line:
            continue  # a host of many containers has thousands of lines
        words = line.split()
        # Field 3 is the device's number; btrfs has one of its own there, so its source counts too.
        source = (
            words[words.index("-") + 2]
            if "-" in words and len(words) > words.index("-") + 2
            else ""
        )
        if len(words) > 4 and number and (words[2] == number or source == f"/dev/{part}"):
            found.append(f"{part} is mounted at {words[4]}")
    return found


def sync(host: Host, call: Call, device: str, limit_s: float) -> None:
    """Write a device's dirty pages to the storage and have it confirmed: fsync(2) on the device.

    By the program of coreutils, in a process of its own: one that hangs can be left behind.
    (BLKFLSBUF, what ``blockdev --flushbufs`` does, reports no error of the write-out.)

    :param device: path of the node.
    :param limit_s: seconds after which the write-out counts as failed.
    :raises ProcessExecutionError: the data is not known to be on the storage; ``ExecutionTimeout``
        if it did not end in time.
    """
    host.programs.run(call, "sync", device, limit_s=limit_s).check()
