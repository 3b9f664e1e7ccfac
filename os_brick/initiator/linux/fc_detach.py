# SPDX-License-Identifier: Apache-2.0
"""Finding what carries a Fibre Channel volume on this host, and the way of its detach.

Found by host → remote port → target → LUN in sysfs: no links, no tool's listing, no question to a
device that may be dead. "Could not look" is an error; nothing there is success.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import (
    fc,
    fc_paths,
    multipath,
    multipath_lookup,
    scsi,
    scsi_removal,
    zfcp,
)
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.fc_paths import FcPath
from os_brick.initiator.linux.fc_volume import FcVolume
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.identity import Identity
from os_brick.initiator.linux.multipath import Map
from os_brick.initiator.linux.scsi import Disk
from os_brick.initiator.linux.zfcp import Unit

LOG = logging.getLogger(__name__)

# A device that was just scanned has its disk when the driver has asked it many things.
_DRIVER_S = 30.0
_MAP_LINK = "/dev/disk/by-id/dm-uuid-mpath-"


@dataclass(frozen=True, slots=True)
class Presence:
    """What of a volume is on this host.

    :ivar disks: its disks.
    :ivar maps: its multipath maps, those that have lost all their paths included.
    :ivar units: what is configured for it on IBM Z and has no disk.
    """

    disks: tuple[Disk, ...]
    maps: tuple[Map, ...]
    units: tuple[Unit, ...]


# -- find ------------------------------------------------------------------------------------
def find(
    host: Host, call: Call, volume: FcVolume, known_wwid: str = "", path_used: str | None = None
) -> Presence:
    """Return what of a volume is here.

    :param known_wwid: the identity the volume had when it was attached, if the caller knows it: a
        disk that says otherwise is another volume that has the LUN by now, and is left alone.
    :param path_used: the path that the caller was given; a link by wwid names the volume too.
    :raises WrongVolume: the disks at its address are different volumes, and it is not known which
        of them is meant.
    :raises OSError: the host could not be looked at.
    """
    with call.step("find the volume") as step:
        wwid = known_wwid or volume.wwid or _wwid_in(path_used)
        hbas = fc.read_hbas(host.sysfs)
        ways = fc_paths.read_ways(host.sysfs, hbas, volume)
        at_address = _devices(host, call, ways.meant)
        ours = [disk for disk in at_address if not _is_another(host, disk, wwid)]
        _check_unanimous(host, ours)
        disks = (*ours, *_strays(host, call, ways.others, ours, wwid))
        maps = multipath.find_maps(host.sysfs, disks)
        if not maps and wwid:
            # The kernel removes paths that were lost for long; their map stays.
            orphan = multipath_lookup.find_map(host, wwid)
            if orphan is not None and orphan.wwid == wwid:
                maps = [orphan]
        step.outcome = ", ".join(map(str, (*disks, *maps))) or "nothing"
        return Presence(disks, tuple(maps), tuple(_units(host, ways.meant)))


def _wwid_in(path: str | None) -> str:
    return path.removeprefix(_MAP_LINK) if path and path.startswith(_MAP_LINK) else ""


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


def _is_another(host: Host, disk: Disk, wwid: str) -> bool:
    if scsi.read_identity(host.sysfs, disk).is_wwid(wwid) is not False:
        return False
    LOG.warning("%s has the LUN of the volume but is another one, it is left alone", disk)
    return True


def _check_unanimous(host: Host, disks: Sequence[Disk]) -> None:
    """Refuse to choose between disks that say they are different volumes."""
    known: tuple[Disk, Identity] | None = None
    for disk in disks:
        identity = scsi.read_identity(host.sysfs, disk)
        if known is not None and known[1].same_as(identity) is False:
            raise exception.WrongVolume(
                device=f"{known[0]} and {disk}",
                reason=f"They have the volume's LUN but are different volumes, {known[1]} and "
                f"{identity}. Nothing was removed; pass on what the attach returned to tell which.",
            )
        if known is None and identity.ids:
            known = disk, identity


def _strays(
    host: Host, call: Call, others: Iterable[FcPath], ours: Sequence[Disk], wwid: str
) -> list[Disk]:
    """Return disks of the volume that came by ports of this host which it is not meant for.

    There the LUN's number may be another volume's, so they have to say that they are this one.
    """
    identities = [scsi.read_identity(host.sysfs, disk) for disk in ours]
    found = []
    for disk in _devices(host, call, others):
        identity = scsi.read_identity(host.sysfs, disk)
        if identity.is_wwid(wwid) or any(identity.same_as(other) for other in identities):
            found.append(disk)
    return found


def _units(host: Host, paths: Iterable[FcPath]) -> list[Unit]:
    """Return the units that are configured for a volume on IBM Z and have no device."""
    units = []
    for path in paths:
        adapter = zfcp.adapter_of(path.hba)
        if adapter is None or fc_paths.has_device(host.sysfs, path):
            continue
        unit = Unit(adapter, path.port.port_name, zfcp.fcp_lun(path.lun))
        if zfcp.is_configured(host.sysfs, unit):
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
    units = presence.units
    scsi_removal.detach(
        host,
        call,
        scsi_removal.plan(host, presence.disks, path_used, presence.maps),
        partial(_leave_units, host, call, units) if units else None,
        force=force,
        errors=errors,
        flush_limit_s=flush_limit_s,
    )


def _leave_units(host: Host, call: Call, units: Iterable[Unit]) -> None:
    for unit in units:
        zfcp.remove_unit(host, call, unit)
