# SPDX-License-Identifier: Apache-2.0
"""What has to be removed with a SCSI volume, as a value: made from sysfs alone, before anything is
done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from os_brick.initiator.linux import block, multipath, nodes, scsi
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.identity import Identity, from_udev
from os_brick.initiator.linux.multipath import Map
from os_brick.initiator.linux.scsi import Disk


@dataclass(frozen=True, slots=True)
class Removal:
    """What carries a volume here and will be removed.

    :ivar flush: kernel names of the devices that are written out first, the map before its paths.
    :ivar numbers: device numbers of all of them, ``major:minor``, under which udev knows them.
    :ivar identities: who the disks were when this was planned, as far as it was asked.
    :ivar strangers: paths of the maps that say they are another volume by now.
    :ivar others: paths of the maps that stay, since nothing says that they are the volume's, with
        the identity that their map gives them.
    """

    disks: tuple[Disk, ...]
    maps: tuple[Map, ...]
    flush: tuple[str, ...]
    numbers: tuple[str, ...] = ()
    identities: Mapping[Disk, Identity] = field(default_factory=dict)
    strangers: tuple[Disk, ...] = ()
    others: Mapping[Disk, Identity] = field(default_factory=dict)

    def __str__(self) -> str:
        maps = ", ".join(map(str, self.maps)) or "no map"
        disks = ", ".join(map(str, self.disks)) or "no disk"
        return f"{maps}; {disks}; write out {', '.join(self.flush) or 'nothing'}"


def plan(
    host: Host, disks: Iterable[Disk], path_used: str | None, maps: Iterable[Map] = ()
) -> Removal:
    """Return what has to be removed with these disks.

    The map over them belongs to the volume, and so do its other paths if they say that they are the
    same volume (they may have come by portals that the caller does not name).

    :param path_used: the device that the caller used, if he knows. A name from before a reboot may
        be another volume's now, so it can only add a device to what is written out, never save one.
    :param maps: further maps of the volume: the kernel removes paths that were lost for long, and a
        map with data that was never written stays without them.
    """
    found = dict.fromkeys(disks)
    identities = {disk: scsi.read_identity(host.sysfs, disk) for disk in found}
    known = tuple(identities.values())
    of_maps = {
        one: paths
        for one in dict.fromkeys((*multipath.find_maps(host.sysfs, found), *maps))
        if not _is_anothers(host, one, paths := multipath.read_members(host.sysfs, one), identities)
    }
    maps = list(of_maps)
    members = {disk: one for one, paths in of_maps.items() for disk in paths}
    others: dict[Disk, Identity] = {}
    strangers: list[Disk] = []
    for disk, one in members.items():
        identity = identities.get(disk) or scsi.read_identity(host.sysfs, disk)
        of_map = identity.is_wwid(one.wwid)
        if of_map is False:
            strangers.append(disk)
        if disk in found:
            continue
        if of_map or any(identity.same_as(other) for other in known):
            found[disk] = None
            identities[disk] = identity
        else:
            others[disk] = from_udev(one.wwid)
    used = nodes.kernel_name(host, path_used)
    flush = [one.name for one in maps]
    named = used in {*(disk.name for disk in found), *(one.name for one in maps)}
    bypassed = {disk for one, paths in of_maps.items() for disk in _bypassing(host, one, paths)}
    for disk in found:
        if not disk.name:
            continue
        if disk in members:
            # I/O went through the map; a dead path would only fail.
            needed = disk.name == used or (not named and disk in bypassed)
        else:
            unknown_use = not maps and not named
            needed = disk.name == used or unknown_use or block.was_written(host.sysfs, disk.name)
        if needed:
            flush.append(disk.name)
    names = [*(one.name for one in maps), *(disk.name for disk in found if disk.name)]
    numbers = (host.sysfs.text("block", name, "dev") for name in names)
    return Removal(
        tuple(found),
        tuple(maps),
        tuple(flush),
        tuple(filter(None, numbers)),
        identities,
        tuple(strangers),
        others,
    )


def _is_anothers(
    host: Host, one: Map, members: list[Disk], identities: Mapping[Disk, Identity]
) -> bool:
    """Tell whether a map is another volume's, which lives by other paths: the array has given the
    LUN of those that are the volume's now to it since they joined.

    A map all paths of which have come to the volume is nobody else's: its data would be lost with
    them.
    """
    if any(
        identities[disk].is_wwid(one.wwid) is not False for disk in members if disk in identities
    ):
        return False
    others = [disk for disk in members if disk not in identities]
    return len(others) < len(members) and any(
        scsi.read_identity(host.sysfs, disk).is_wwid(one.wwid) for disk in others
    )


def _bypassing(host: Host, one: Map, members: list[Disk]) -> list[Disk]:
    """Return the paths of a map that may have been written to past the map.

    So it is where a single disk was attached and multipathd made a map over it later: then the
    disk's dirty pages stay when its user closes it, as the map holds it open. Known from the counts
    of writes: what goes through a map is counted there and at one path. More at the paths may also
    be writes that failed and were repeated on another path, so one that is down does not count then
    unless all are.
    """
    of_paths = sum(block.read_writes(host.sysfs, disk.name) or 0 for disk in members)
    of_map = block.read_writes(host.sysfs, one.name) or 0
    if not of_map:
        return members
    if of_paths <= of_map:
        return []
    return [disk for disk in members if scsi.state(host.sysfs, disk) == "running"] or members


def only(host: Host, disks: Iterable[Disk]) -> Removal:
    """Return the removal of just these disks, which nobody was given: nothing is written out.

    A map goes with them if it has no other path.
    """
    found = tuple(dict.fromkeys(disks))
    maps = [
        one
        for one in multipath.find_maps(host.sysfs, found)
        if set(multipath.read_members(host.sysfs, one)) <= set(found)
    ]
    return Removal(found, tuple(maps), ())
