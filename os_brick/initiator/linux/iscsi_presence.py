# SPDX-License-Identifier: Apache-2.0
"""Finding what of an iSCSI volume is on this host: its disks and maps, and the targets it came by.

From sessions and sysfs only: no links, no tool's listing, no question to a device that may be
dead. "Could not look" is an error; nothing there is success. open-iscsi's records are asked where
nothing else is left.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import (
    iscsi,
    iscsi_discovery,
    multipath,
    multipath_lookup,
    nodes,
    open_iscsi,
    scsi,
    scsi_removal,
)
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.identity import from_udev
from os_brick.initiator.linux.iscsi import IscsiPath, Session, Target
from os_brick.initiator.linux.iscsi_volume import IscsiVolume
from os_brick.initiator.linux.multipath import Map
from os_brick.initiator.linux.scsi import Disk

LOG = logging.getLogger(__name__)

# A device that was just scanned has its disk when the driver has asked it many things.
_DRIVER_S = 30.0


@dataclass(frozen=True, slots=True)
class Presence:
    """What of a volume is on this host.

    :ivar disks: its disks.
    :ivar maps: its multipath maps, those that have lost all their paths included.
    :ivar targets: the targets it came by, which are logged out of if nobody else uses them.
    :ivar trouble: what is there and cannot be told to be the volume's or not; None if there is
        nothing such.
    """

    disks: tuple[Disk, ...]
    targets: tuple[Target, ...]
    maps: tuple[Map, ...] = ()
    trouble: Exception | None = None


def find(
    host: Host,
    call: Call,
    volume: IscsiVolume,
    iface: str,
    known_wwid: str = "",
    path_used: str | None = None,
) -> Presence:
    """Return the disks and targets of a volume.

    If the caller named one target only, the other paths of its map are the volume's too; and if
    that target has no disk any more, it is looked for by its identity and by the target's name.
    Other targets behind the portal may be other volumes: what they show is never taken for it.

    :param known_wwid: the identity the volume had when it was attached, if the caller knows it: a
        disk that says otherwise is another volume that has the LUN by now, and is left alone.
    :param path_used: the device that the caller was given, if he knows it.
    :raises OSError: the host could not be looked at.
    """
    with call.step("find the volume") as step:
        found = _find_by(host, call, volume.paths, known_wwid)
        if not volume.given:
            if not found.disks:
                found = _find_elsewhere(host, call, volume, iface, known_wwid) or found
            if found.disks:
                found = _with_other_portals(host, call, volume, found, known_wwid, path_used)
        found = _with_other_paths(host, volume, found, known_wwid, path_used)
        try:
            maps = _find_maps(host, call, volume, found, known_wwid, path_used)
        except exception.BrickException as exc:
            return dataclasses.replace(found, trouble=exc)
        step.outcome = ", ".join(map(str, (*found.disks, *maps))) or "nothing"
        return dataclasses.replace(found, maps=maps)


def _find_elsewhere(
    host: Host, call: Call, volume: IscsiVolume, iface: str, known_wwid: str
) -> Presence | None:
    """Look for a volume whose only named target shows nothing (its others were discovered).

    By its identity on all sessions of this host, by the same target name and LUN through other
    portals, else by what an earlier version's discovery left of that name in open-iscsi's records.
    """
    disks: dict[Disk, None] = {}
    targets: dict[Target, None] = dict.fromkeys([volume.main.target])
    for session in iscsi.read_sessions(host.sysfs):
        found = _with_identity(host, session, volume.main.lun, known_wwid) if known_wwid else []
        if not found and session.iqn.lower() == volume.main.target.iqn.lower():
            same_lun = _find_disk(host, call, session, volume.main.lun)
            if same_lun is not None and not _is_another(host, same_lun, known_wwid):
                found = [same_lun]
        disks.update(dict.fromkeys(found))
        if found and session.portals:
            targets[_target_of(session)] = None
    if disks:
        return Presence(tuple(disks), tuple(targets))
    main = volume.main.target
    trouble: Exception | None = None
    remembered: list[Target] = []
    try:
        remembered = iscsi_discovery.read_discovered(host, call, main.portal, iface)
        remembered += open_iscsi.read_booted(host, call, main.iqn)
    except exception.BrickException as exc:  # what there is otherwise can be removed with force
        trouble = exc
    # What an earlier detach could not log out of has no disk any more to be known by.
    emptied = [
        _target_of(session)
        for session in iscsi.read_sessions(host.sysfs, lambda iqn: iqn.lower() == main.iqn.lower())
        if session.portals and not session.serves(main)
    ]
    # Behind the portal are the targets of other volumes too, under the same LUN.
    remembered = [target for target in remembered if target.iqn.lower() == main.iqn.lower()]
    paths = [IscsiPath(target, volume.main.lun) for target in (main, *emptied, *remembered)]
    presence = _find_by(host, call, dict.fromkeys(paths), known_wwid)
    return dataclasses.replace(presence, trouble=trouble)


def _with_other_portals(
    host: Host,
    call: Call,
    volume: IscsiVolume,
    found: Presence,
    known_wwid: str,
    path_used: str | None,
) -> Presence:
    """Return the presence with what the same target shows by the portals that a discovery found.

    Their disks may be in no map, and one of them the disk that was used; and what has lost its disk
    or never gave one has its session still. A portal may show another volume under that LUN, so a
    disk has to say that it is this one, or to be the one that was used.
    """
    used = nodes.kernel_name(host, path_used)
    disks = dict.fromkeys(found.disks)
    targets = dict.fromkeys(found.targets)
    identities = [scsi.read_identity(host.sysfs, disk) for disk in found.disks]
    iqn, lun = volume.main.target.iqn.lower(), volume.main.lun
    for session in iscsi.read_sessions(host.sysfs, lambda name: name.lower() == iqn):
        if not session.portals or any(session.serves(target) for target in found.targets):
            continue
        disk = _find_disk(host, call, session, lun)
        if disk is not None:
            identity = scsi.read_identity(host.sysfs, disk)
            same = {identity.same_as(one) for one in identities}
            same.add(identity.is_wwid(known_wwid))
            if False in same or not (True in same or (used and disk.name == used)):
                continue
            disks.update(dict.fromkeys((disk, *_find_twins(host, session, lun, disk))))
        elif iscsi.is_used(host.sysfs, session) or not open_iscsi.may_be_ours(
            host, call, _target_of(session)
        ):
            continue
        targets[_target_of(session)] = None
    return dataclasses.replace(found, disks=tuple(disks), targets=tuple(targets))


def _with_identity(host: Host, session: Session, lun: int, wwid: str) -> list[Disk]:
    """Return the disks of a session under a LUN that say they are a volume.

    Under another LUN it is another attachment of the volume, and somebody else's.
    """
    disks = iscsi.find_disks(host.sysfs, session, lun)
    return [disk for disk in disks if scsi.read_identity(host.sysfs, disk).is_wwid(wwid)]


def _is_another(host: Host, disk: Disk, known_wwid: str) -> bool:
    """Tell whether a disk at the volume's address says that it is another volume."""
    if not known_wwid:
        return False
    if scsi.read_identity(host.sysfs, disk).is_wwid(known_wwid) is not False:
        return False
    LOG.warning("%s has the LUN of the volume but is another one, it is left alone", disk)
    return True


def _find_maps(
    host: Host,
    call: Call,
    volume: IscsiVolume,
    found: Presence,
    known_wwid: str,
    path_used: str | None,
) -> tuple[Map, ...]:
    """Return the volume's maps. When sessions end, the kernel removes the paths; the map, with data
    that was never written out, may stay without them."""
    maps = multipath.find_maps(host.sysfs, found.disks)
    if not maps and found.disks:
        # They may have come back without having joined the map that has the data.
        maps = _find_apart(host, volume, found.disks, known_wwid, path_used)
    if maps:
        return tuple(maps)
    if known_wwid and not found.disks:
        orphan = multipath_lookup.find_map(host, known_wwid)
        if orphan is None or orphan.wwid != known_wwid or _is_used_elsewhere(host, volume, orphan):
            return ()
        return (orphan,)
    used = multipath.read_map(host.sysfs, nodes.kernel_name(host, path_used) or "")
    if used is None:
        return ()
    members = multipath.read_members(host.sysfs, used)
    if members and not (not found.disks and _may_be_by_others(host, volume, members)):
        return ()
    if members and scsi_removal.find_users(host, call, scsi_removal.Removal((), (used,), ())):
        # A name from before a reboot: whoever detaches his volume does not use it any more.
        return ()
    said = [from_udev(known_wwid), *(scsi.read_identity(host.sysfs, one) for one in found.disks)]
    if not any(identity.is_wwid(used.wwid) is False for identity in said):
        raise exception.BrickException(
            f"{used}, which was used, has no path left{' by the named target' if members else ''}, "
            "and whether it is this volume's cannot be told. Nothing was removed; pass on what the "
            "attach returned to tell it."
        )
    return ()


def _may_be_by_others(host: Host, volume: IscsiVolume, members: Iterable[Disk]) -> bool:
    """Tell whether paths may be those of the volume that a discovery found under other names.

    Another volume of the array has one through the named portal as well.
    """
    main = volume.main
    for disk in members:
        session = iscsi.session_of_disk(host.sysfs, disk)
        if session is None or not scsi.same_lun(disk.hctl.lun, main.lun):
            return False
        if main.target.portal in session.portals:
            return False
    return not volume.given


def _is_used_elsewhere(host: Host, volume: IscsiVolume, one: Map) -> bool:
    """Tell whether the volume's map has paths that came by another target or LUN: so it is another
    attachment's."""
    for disk in multipath.read_members(host.sysfs, one):
        if scsi.read_identity(host.sysfs, disk).is_wwid(one.wwid) is False:
            continue  # it leads to another volume by now
        session = iscsi.session_of_disk(host.sysfs, disk)
        if session is None and not scsi.is_there(host.sysfs, disk):
            continue  # gone since it was looked at
        # Which targets a discovery has found is not known any more.
        if session is None or not any(
            (not volume.given or session.iqn.lower() == path.target.iqn.lower())
            and scsi.same_lun(disk.hctl.lun, path.lun)
            for path in volume.paths
        ):
            return True
    return False


def _find_apart(
    host: Host,
    volume: IscsiVolume,
    disks: Iterable[Disk],
    known_wwid: str,
    path_used: str | None,
) -> list[Map]:
    """Return the map of the same volume as some disks that are not in it; it may live by others."""
    identities = [scsi.read_identity(host.sysfs, disk) for disk in disks]
    wwids = dict.fromkeys((known_wwid, *(one for who in identities for one in who.ids)))
    maps = [multipath_lookup.find_by_link(host, wwid) for wwid in wwids if wwid]
    maps.append(multipath.read_map(host.sysfs, nodes.kernel_name(host, path_used) or ""))
    return [
        one
        for one in dict.fromkeys(filter(None, maps))
        if (one.wwid == known_wwid or any(who.is_wwid(one.wwid) for who in identities))
        and not _is_used_elsewhere(host, volume, one)
    ]


def _find_by(host: Host, call: Call, paths: Iterable[IscsiPath], known_wwid: str) -> Presence:
    disks: dict[Disk, None] = {}
    paths = tuple(paths)
    for path in paths:
        for session in iscsi.find_sessions(host.sysfs, path.target):
            disk = _find_disk(host, call, session, path.lun)
            if disk is not None and not _is_another(host, disk, known_wwid):
                disks.update(dict.fromkeys((disk, *_find_twins(host, session, path.lun, disk))))
    return Presence(tuple(disks), tuple(dict.fromkeys(path.target for path in paths)))


def _find_twins(host: Host, session: Session, lun: int, disk: Disk) -> list[Disk]:
    """Return the disks of the same volume under other codings of the LUN's number."""
    identity = scsi.read_identity(host.sysfs, disk)
    return [
        twin
        for twin in iscsi.find_disks(host.sysfs, session, lun)
        if twin != disk and identity.same_as(scsi.read_identity(host.sysfs, twin))
    ]


def _find_disk(host: Host, call: Call, session: Session, lun: int) -> Disk | None:
    """Return the disk of a LUN; the bare device if no driver takes it, as after a killed attach."""

    def look() -> Disk | None:
        return iscsi.find_disk(host.sysfs, session, lun)

    def bare() -> Disk | None:
        return iscsi.find_bare(host.sysfs, session, lun)

    disk = look()
    if disk is None and bare() is not None:
        call.wait_until(lambda: look() or bare() is None, what="disk of the LUN", limit_s=_DRIVER_S)
        disk = look() or bare()
    return disk


def _with_other_paths(
    host: Host, volume: IscsiVolume, found: Presence, known_wwid: str, path_used: str | None
) -> Presence:
    """Return the presence with the targets by which the other paths of its map came."""
    disks = dict.fromkeys(found.disks)
    targets = dict.fromkeys(found.targets)
    identities = [scsi.read_identity(host.sysfs, disk) for disk in found.disks]
    maps = multipath.find_maps(host.sysfs, found.disks)
    if not maps and found.disks:
        maps = _find_apart(host, volume, found.disks, known_wwid, path_used)
    for one in maps:
        for disk in multipath.read_members(host.sysfs, one):
            identity = scsi.read_identity(host.sysfs, disk)
            session = iscsi.session_of_disk(host.sysfs, disk)
            if session is None or not session.portals:
                continue
            if not (
                any(identity.same_as(other) for other in identities) or identity.is_wwid(known_wwid)
            ):
                continue
            disks[disk] = None
            if not any(session.serves(target) for target in targets):
                targets[_target_of(session)] = None
    return dataclasses.replace(found, disks=tuple(disks), targets=tuple(targets))


def _target_of(session: Session) -> Target:
    return Target(min(session.portals), session.iqn)
