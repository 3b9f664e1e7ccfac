# SPDX-License-Identifier: Apache-2.0
"""Finding what carries a Fibre Channel volume on this host, and the way of its detach.

Found by host → remote port → target → LUN in sysfs: no links, no tool's listing, no question to a
device that may be dead. "Could not look" is an error; nothing there is success.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import (
    fc,
    fc_links,
    fc_paths,
    multipath,
    multipath_lookup,
    nodes,
    scsi,
    scsi_removal,
    zfcp,
)
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.fc_links import LinkNames
from os_brick.initiator.linux.fc_paths import FcPath, Ways
from os_brick.initiator.linux.fc_volume import FcVolume
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.identity import Identity, from_udev
from os_brick.initiator.linux.multipath import Map
from os_brick.initiator.linux.scsi import Disk
from os_brick.initiator.linux.zfcp import Unit

LOG = logging.getLogger(__name__)

# A device that was just scanned has its disk when the driver has asked it many things.
_DRIVER_S = 30.0
_MAP_LINK = "/dev/disk/by-id/dm-uuid-mpath-"
_MAP_NAME = "/dev/mapper/"


@dataclass(frozen=True, slots=True)
class Presence:
    """What of a volume is on this host.

    :ivar disks: its disks.
    :ivar maps: its multipath maps, those that have lost all their paths included.
    :ivar units: what is configured for it on IBM Z and has no disk.
    :ivar doubtful: a map that the caller has used, has lost all its paths, and may be another
        volume's.
    :ivar is_link_shared: the link that the caller has used may be of several of its disks.
    :ivar wwid: its identity; empty if that is not known.
    """

    disks: tuple[Disk, ...]
    maps: tuple[Map, ...]
    units: tuple[Unit, ...]
    doubtful: Map | None = None
    is_link_shared: bool = False
    wwid: str = ""


# -- find ------------------------------------------------------------------------------------
def find(
    host: Host,
    call: Call,
    volume: FcVolume,
    link_names: LinkNames,
    known_wwid: str = "",
    path_used: str | None = None,
) -> Presence:
    """Return what of a volume is here.

    :param link_names: names that udev may give to a path on this platform.
    :param known_wwid: the identity the volume had when it was attached, if the caller knows it: a
        disk that says otherwise is another volume that has the LUN by now, and is left alone.
    :param path_used: the path that the caller was given. It names the volume too if it is a link by
        wwid, or the link of a path by a port that the volume is not meant for.
    :raises WrongVolume: the disks at its address are different volumes, and it is not known which
        of them is meant.
    :raises OSError: the host could not be looked at.
    """
    with call.step("find the volume") as step:
        named = _find_map_named(host, path_used)
        wwid = known_wwid or volume.wwid or _wwid_in(path_used, named)
        hbas = fc.read_hbas(host.sysfs)
        ways = fc_paths.read_ways(host.sysfs, hbas, volume)
        at_address = _devices(host, call, ways.meant)
        said = {disk: scsi.read_identity(host.sysfs, disk) for disk in at_address}
        ours = {disk: who for disk, who in said.items() if not _is_another(disk, who, wwid)}
        _check_unanimous(ours)
        linked = _linked(host, ways.others, link_names, path_used)
        disks = (*ours, *_strays(host, call, ways.others, ours.values(), linked, wwid))
        maps = multipath.find_maps(host.sysfs, disks)
        if not maps:
            # The kernel removes paths that were lost for long; their map stays, maybe with others
            # by ports that are not named. One that has come back may not be in it yet.
            wwids = dict.fromkeys((wwid, *(one for who in ours.values() for one in who.ids)))
            apart = multipath_lookup.find_map_of(host, [one for one in wwids if one])
            if apart is not None and not _is_used_elsewhere(host, ways, apart):
                maps = [apart]
                disks = tuple(dict.fromkeys((*disks, *_members(host, apart))))
        doubtful = None
        if not disks and not maps:
            orphan = _find_empty_map(host, path_used, wwid)
            if orphan is not None and orphan == named and not wwid:
                maps = [orphan]
                wwid = orphan.wwid
            else:
                doubtful = orphan
        step.outcome = ", ".join(map(str, (*disks, *maps))) or "nothing"
        shared = _is_shared(host, (*ways.meant, *ways.others), link_names, path_used)
        wwid = wwid or next((who.wwid for who in ours.values() if who.ids), "")
        # Another volume has the LUN by now, so they are its units.
        units = () if len(ours) < len(at_address) else tuple(_units(host, ways, volume))
        return Presence(disks, tuple(maps), units, doubtful, shared, wwid)


def find_returned(
    host: Host, call: Call, volume: FcVolume, link_names: LinkNames, before: Presence
) -> Presence | None:
    """Return what the kernel has brought back of a volume since it was found and detached; None if
    there is nothing.

    It scans a port that has come back by itself, and multipathd makes a map of what it finds.

    :raises OSError: the host could not be looked at.
    """
    ways = fc_paths.read_ways(host.sysfs, fc.read_hbas(host.sysfs), volume)
    if not any(fc_paths.has_device(host.sysfs, path) for path in (*ways.meant, *ways.others)):
        return None  # the usual case: it costs few looks, however many maps the host has
    now = find(host, call, volume, link_names, before.wwid)
    disks = tuple(disk for disk in now.disks if disk not in before.disks)
    maps = tuple(one for one in now.maps if one not in before.maps)
    return Presence(disks, maps, (), wwid=now.wwid) if disks else None


def _members(host: Host, one: Map) -> list[Disk]:
    """Return the paths of a map that say they are its volume."""
    members = multipath.read_members(host.sysfs, one)
    return [disk for disk in members if scsi.read_identity(host.sysfs, disk).is_wwid(one.wwid)]


def _is_used_elsewhere(host: Host, ways: Ways, one: Map) -> bool:
    """Tell whether the volume's map has paths by its ports under another LUN: so it is another
    attachment's. By ports that are not named, its LUN may always have been another."""
    luns: dict[tuple[int, int, int], list[int]] = {}
    for path in (*ways.meant, *ways.others):
        port = path.port
        luns.setdefault((port.host, port.channel, port.target), []).append(path.lun)
    return any(
        not any(scsi.same_lun(disk.hctl.lun, lun) for lun in luns[at])
        for disk in multipath.read_members(host.sysfs, one)
        if (at := (disk.hctl.host, disk.hctl.channel, disk.hctl.target)) in luns
        and scsi.read_identity(host.sysfs, disk).is_wwid(one.wwid) is not False
        and scsi.is_there(host.sysfs, disk)
    )


def _is_shared(host: Host, paths: Iterable[FcPath], by: LinkNames, path_used: str | None) -> bool:
    """Tell whether the link that the caller has used may be of several disks: udev gives it to
    that of which it had news last, so it need not lead to the one that was used any more."""
    if not path_used or not path_used.startswith(f"{fc_links.BY_PATH}/"):
        return False
    name = path_used.removeprefix(f"{fc_links.BY_PATH}/")
    disks = [(path, fc_paths.find_disk(host.sysfs, path)) for path in paths]
    return sum(1 for path, one in disks if one and name in fc_links.names_of(by, path, one)) > 1


def _wwid_in(path: str | None, named: Map | None) -> str:
    """Return the wwid that a path tells: a link by wwid, or a map's name that is its wwid."""
    if path and path.startswith(_MAP_LINK):
        return path.removeprefix(_MAP_LINK)
    return named.wwid if named is not None and path == f"{_MAP_NAME}{named.wwid}" else ""


def _find_map_named(host: Host, path: str | None) -> Map | None:
    """Return the map that a path names, and leads to; one by kernel name names none."""
    one = multipath_lookup.find_map(host, path) if path and path.startswith(_MAP_NAME) else None
    return one if one and path in (f"{_MAP_NAME}{one.label}", f"{_MAP_NAME}{one.wwid}") else None


def _find_empty_map(host: Host, path: str | None, wwid: str) -> Map | None:
    """Return the map that a path leads to if it has lost all its paths, and is not known to be
    another volume's."""
    one = multipath_lookup.find_map(host, path) if path and path.startswith("/") else None
    if one is None or multipath.member_names(host.sysfs, one):
        return None
    return None if from_udev(one.wwid).is_wwid(wwid) is False else one


def _devices(host: Host, call: Call, paths: Iterable[FcPath]) -> list[Disk]:
    """Return the disks at the end of paths; the bare device where no driver takes it."""
    found = (_device(host, call, path) for path in paths)
    return list(dict.fromkeys(disk for disk in found if disk is not None))


def _device(host: Host, call: Call, path: FcPath) -> Disk | None:
    def look() -> Disk | None:
        return fc_paths.find_disk(host.sysfs, path)

    def bare() -> Disk | None:
        return fc_paths.find_bare(host.sysfs, path)

    disk = look()
    if disk is None and bare() is not None:
        call.wait_until(lambda: look() or bare() is None, what="disk of the LUN", limit_s=_DRIVER_S)
        disk = look() or bare()
    return disk


def _is_another(disk: Disk, identity: Identity, wwid: str) -> bool:
    if identity.is_wwid(wwid) is not False:
        return False
    LOG.warning("%s has the LUN of the volume but is another one, it is left alone", disk)
    return True


def _check_unanimous(disks: Mapping[Disk, Identity]) -> None:
    """Refuse to choose between disks that say they are different volumes."""
    known: tuple[Disk, Identity] | None = None
    for disk, identity in disks.items():
        if known is not None and known[1].same_as(identity) is False:
            raise exception.WrongVolume(
                device=f"{known[0]} and {disk}",
                reason=f"They have the volume's LUN but are different volumes, {known[1]} and "
                f"{identity}. Nothing was removed; pass on what the attach returned to tell which.",
            )
        if known is None and identity.ids:
            known = disk, identity


def _linked(
    host: Host, others: Iterable[FcPath], by: LinkNames, path_used: str | None
) -> Disk | None:
    """Return the disk by a port that the volume is not meant for which the caller has used.

    So it is when the zones are another host's, as after a live migration (bug 1406161), and nothing
    is known but udev's link: it has to be the link of that very path, and to lead to its disk.
    """
    if not path_used or not path_used.startswith(f"{fc_links.BY_PATH}/"):
        return None
    name, leads_to = (
        path_used.removeprefix(f"{fc_links.BY_PATH}/"),
        nodes.kernel_name(host, path_used),
    )
    for path in others:
        disk = fc_paths.find_disk(host.sysfs, path)
        if disk and disk.name == leads_to and name in fc_links.names_of(by, path, disk):
            return disk
    return None


def _strays(
    host: Host,
    call: Call,
    others: Iterable[FcPath],
    ours: Iterable[Identity],
    linked: Disk | None,
    wwid: str,
) -> list[Disk]:
    """Return disks of the volume that came by ports of this host which it is not meant for.

    There the LUN's number may be another volume's, so they have to say that they are this one, or
    the same as the one that the caller has used.

    :param ours: who the disks at its address say they are.
    :param linked: that one; it does not count if it says that it is another volume.
    """
    identities = list(ours)
    if linked is not None:
        identity = scsi.read_identity(host.sysfs, linked)
        if identity.is_wwid(wwid) is False or any(
            identity.same_as(other) is False for other in identities
        ):
            LOG.warning("%s was said to be used but is another volume, it is left alone", linked)
            linked = None
        else:
            identities.append(identity)
    found = []
    for disk in _devices(host, call, others):
        identity = scsi.read_identity(host.sysfs, disk)
        same = identity.is_wwid(wwid) or any(identity.same_as(other) for other in identities)
        if same or disk == linked:
            found.append(disk)
    return found


def _units(host: Host, ways: Ways, volume: FcVolume) -> list[Unit]:
    """Return the units that are configured for a volume on IBM Z and have no device.

    The driver keeps them while their port is away.
    """
    used = {
        (path.hba, path.port.port_name, path.lun)
        for path in ways.meant
        if fc_paths.has_device(host.sysfs, path)
    }
    units = []
    for hba in ways.hbas:
        adapter = zfcp.adapter_of(hba)
        for target in volume.targets_by(hba.port_name) if adapter else ():
            unit = Unit(adapter or "", target.wwpn, zfcp.fcp_lun(target.lun))
            is_free = (hba, target.wwpn, target.lun) not in used
            if is_free and zfcp.is_configured(host.sysfs, unit):
                units.append(unit)
    return units


# -- detach ----------------------------------------------------------------------------------
def detach(
    host: Host,
    call: Call,
    presence: Presence,
    *,
    path_used: str | None,
    force: bool,
    errors: exception.ExceptionChainer,
    flush_limit_s: float,
) -> None:
    """Take a volume away from the host; the caller holds the volume's lock.

    :param errors: with ``force``, what failed; everything was attempted then.
    :raises BrickException: without ``force``, the first failure; what comes after it is in place.
    """
    with errors.context(force, "Not everything can be told to be the volume's"):
        _check_nothing_doubtful(presence)
    units = presence.units
    scsi_removal.detach(
        host,
        call,
        scsi_removal.plan(
            host, presence.disks, None if presence.is_link_shared else path_used, presence.maps
        ),
        partial(_leave_units, host, call, units) if units else None,
        force=force,
        errors=errors,
        flush_limit_s=flush_limit_s,
    )


def _check_nothing_doubtful(presence: Presence) -> None:
    """Refuse to say that nothing is here while the caller names a map that may hold its data.

    A name such as ``/dev/dm-3`` from before a reboot may be another volume's by now.

    :raises WrongVolume: he does.
    """
    one = presence.doubtful
    if one is not None:
        raise exception.WrongVolume(
            device=one.path,
            reason=f"This multipath map, {one.label}, has lost all its paths and may hold data "
            "that was never written. That it is the volume's is not known, so it is left: detach "
            f"with the path {_MAP_LINK}{one.wwid} if it is.",
        )


def _leave_units(host: Host, call: Call, units: Iterable[Unit]) -> None:
    for unit in units:
        zfcp.remove_unit(host, call, unit)
