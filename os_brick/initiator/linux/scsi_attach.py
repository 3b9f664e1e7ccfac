# SPDX-License-Identifier: Apache-2.0
"""The end of an attach, the same for iSCSI and Fibre Channel: from disks that appear to what the
caller gets, or back to how the host was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from oslo_concurrency import processutils
from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import (
    block,
    multipath,
    scsi,
    scsi_removal,
    scsi_resize,
    scsi_volume,
)
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.multipath import Map
from os_brick.initiator.linux.scsi import Disk
from os_brick.initiator.linux.scsi_removal import Removal
from os_brick.initiator.linux.scsi_volume import Found, MapWait

LOG = logging.getLogger(__name__)

# Nobody was given the device, so there is nothing to write out that would take long.
_REMOVAL_LIMIT_S = 15.0
# udev, multipathd and LVM open a new device for moments to look at it.
_SHORT_USE_S = 10.0


@dataclass(frozen=True, slots=True)
class Attached:
    """What an attach gives: the device, the identity it says it has, and its map if it is one."""

    path: str
    wwid: str
    map: Map | None
    kept: Map | Disk
    """What is in use from now on."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """How patiently a map is asked whether it can be used.

    :ivar attempts: option ``wait_mpath_device_attempts``.
    :ivar interval_s: option ``wait_mpath_device_interval``.
    """

    attempts: int
    interval_s: float


def take_disk(host: Host, call: Call, disk: Disk) -> Attached:
    """Return one disk as the result.

    :raises VolumeDeviceNotFound: it has no device node, or has gone.
    """
    identity = scsi_volume.check_same_volume(host, [disk])
    _wait_for_node(host, call, disk.name)
    if not scsi.is_there(host.sysfs, disk):
        raise exception.VolumeDeviceNotFound(
            device=disk.path, reason=f"{disk} has gone, its name may be another's by now."
        )
    return Attached(disk.path, scsi_volume.preferred_wwid(host, identity), None, disk)


def _first(disks: Sequence[Disk]) -> Disk:
    return disks[0]


def take_map(
    host: Host,
    call: Call,
    waiting: MapWait,
    readiness: Readiness,
    choose: Callable[[Sequence[Disk]], Disk] = _first,
) -> Attached | None:
    """Wait for the map of the disks that appear and return it, with whatever paths it has.

    :param choose: picks the disk that is returned if no map is made.
    :returns: a disk if no map is made, with a warning; None if no disk appeared.
    :raises WrongVolume: the paths lead to different volumes.
    :raises VolumeDeviceNotFound: there is a map, but no I/O can go through it now: a disk below it
        would be used beside it.
    :raises ProcessExecutionError: the map cannot be used.
    """
    one = waiting.wait()
    disks = waiting.present()
    if not disks:
        return None
    if one is not None:
        _remove_strangers(host, call, one, disks)
    scsi_volume.check_same_volume(host, disks, [one] if one else [])
    if one is None:
        for unusable in multipath.find_maps(host.sysfs, disks):
            raise exception.VolumeDeviceNotFound(
                device=unusable.path, reason=f"{unusable} has no running path, or is being changed."
            )
        if waiting.daemon() is False:
            LOG.warning("Multipathing is requested but the host doesn't support multipathing.")
        LOG.warning(
            "No dm was created, connection to volume is probably bad and will perform poorly."
        )
        return take_disk(host, call, choose(disks))
    scsi_volume.check_ready_for_io(host, call, one, readiness.attempts, readiness.interval_s)
    _grow(host, call, one)
    _wait_for_node(host, call, one.name)
    # Once more, now that all is settled: a path may have come up since.
    disks = waiting.present()
    scsi_volume.check_same_volume(host, disks, [one])
    # Last of all, since names are used again: it is this map, and it is over these disks.
    if set(disks).isdisjoint(multipath.read_members(host.sysfs, one)) or not is_there(host, one):
        raise exception.VolumeDeviceNotFound(
            device=one.path, reason=f"{one} has lost the paths of this attach, or has gone."
        )
    return Attached(one.path, one.wwid, one, one)


def _remove_strangers(host: Host, call: Call, one: Map, ours: Sequence[Disk]) -> None:
    """Take those paths out of a map that have been there before and lead to another volume by now.

    multipathd goes by the page that the kernel keeps of them: the array may have given their LUNs
    to another volume since. Those that do not answer are left: nothing reaches anybody by them.
    """
    kept = {
        disk: scsi.read_identity(host.sysfs, disk)
        for disk in multipath.read_members(host.sysfs, one)
        if disk not in ours and scsi.state(host.sysfs, disk) == "running"
    }
    asked = call.each(
        {str(disk): partial(host.changes.inquire, call, disk) for disk in kept}, what="inquiries"
    )
    for disk, identity in kept.items():
        answer = asked[str(disk)]
        if answer.error is not None:
            LOG.warning("Path %s of %s does not say who it is: %s", disk, one, answer.error)
        elif answer.value is None or False in (
            identity.same_as(answer.value),
            answer.value.is_wwid(one.wwid),
        ):
            scsi_removal.remove_stale(host, call, disk)


def _grow(host: Host, call: Call, one: Map) -> None:
    """Give a map that was there the size that its paths, which have been read anew, have by now."""
    members = multipath.read_members(host.sysfs, one)
    sizes = {block.read_size(host.sysfs, disk.name) for disk in members}
    before, size = block.read_size(host.sysfs, one.name), sizes.pop() if len(sizes) == 1 else None
    if not before or not size or before >= size:
        return
    try:
        scsi_resize.ask_daemon(
            host, call, one, lambda: block.read_size(host.sysfs, one.name) == size
        )
    except processutils.ProcessExecutionError as exc:  # whoever uses it can do so as before
        LOG.warning("%s has %s bytes only, its paths have %s: %s", one, before, size, exc)


def _wait_for_node(host: Host, call: Call, name: str) -> None:
    if not call.wait_until(lambda: host.dev.exists(name), what=f"node /dev/{name}"):
        raise exception.VolumeDeviceNotFound(device=f"/dev/{name}", reason="It has no device node.")


def is_there(host: Host, kept: Map | Disk | None) -> bool:
    """Tell whether what an attach gave still exists."""
    if isinstance(kept, Map):
        return multipath.is_there(host.sysfs, kept)
    return kept is not None and scsi.is_there(host.sysfs, kept)


def joins(host: Host, kept: Map | Disk | None, disk: Disk) -> bool:
    """Tell whether a disk that came late is the same volume as what an attach gave."""
    try:
        scsi_volume.check_same_volume(
            host,
            [disk, *([kept] if isinstance(kept, Disk) else [])],
            [kept] if isinstance(kept, Map) else [],
        )
    except exception.WrongVolume as exc:
        LOG.error("Late path %s does not join: %s", disk, exc)
        return False
    return kept is not None


# -- back to how it was ----------------------------------------------------------------------
def remove_made(host: Host, call: Call, found: Iterable[Found | None]) -> None:
    """Remove the disks that an attach that failed has made; those that were there stay.

    A disk that is in use by now stays too, with a warning: somebody else who attaches the volume,
    and does not share our locks, may have taken it.

    :raises ExceptionChainer: what could not be removed.
    """
    disks = _unused(host, call, [one.disk for one in found if one and not one.was_there])
    if not disks:
        return
    errors = exception.ExceptionChainer()
    removal = scsi_removal.only(host, disks)
    if removal.maps:
        # Whoever opens the map just now keeps it; only if nobody does, a failure is overcome.
        try:
            _carry_out(host, call, removal, force=False, errors=errors)
        except Exception as exc:  # noqa: BLE001 - it is tried again in another way
            LOG.warning("%s could not be removed: %s", removal, exc)
            removal = scsi_removal.only(host, _unused(host, call, disks))
    _carry_out(host, call, removal, force=True, errors=errors)
    if errors:
        raise errors


def remove_path(host: Host, call: Call, disk: Disk) -> None:
    """Remove one disk that came late, and nothing else; not if somebody could not do without it.

    multipathd takes it out of its map, which goes with its last path.

    :raises ExceptionChainer: it could not be removed.
    """
    errors = exception.ExceptionChainer()
    for one in _unused(host, call, [disk]):
        _carry_out(host, call, Removal((one,), (), ()), force=True, errors=errors)
    if errors:
        raise errors


def _carry_out(
    host: Host, call: Call, removal: Removal, *, force: bool, errors: exception.ExceptionChainer
) -> None:
    scsi_removal.carry_out(
        host, call, removal, force=force, errors=errors, flush_limit_s=_REMOVAL_LIMIT_S
    )


def _unused(host: Host, call: Call, disks: Iterable[Disk]) -> list[Disk]:
    """Return those of some disks that nobody uses, with a warning about the others.

    Whoever only looks at them gets a moment to end.
    """
    disks = [disk for disk in dict.fromkeys(disks) if scsi.is_there(host.sysfs, disk)]

    def used() -> dict[Disk, list[str]]:
        return {
            disk: users
            for group in _by_map(host, disks)
            if (users := _find_users(host, call, group))
            for disk in group
        }

    if used():
        call.wait_until(lambda: not used(), what="end of use", limit_s=_SHORT_USE_S)
    kept = used()
    for disk, users in kept.items():
        LOG.warning("%s is left, as it is in use by now: %s", disk, "; ".join(users))
    return [disk for disk in disks if disk not in kept]


def _by_map(host: Host, disks: Iterable[Disk]) -> list[list[Disk]]:
    """Return disks in groups: those of one map together, each other one alone."""
    groups: dict[object, list[Disk]] = {}
    for disk in disks:
        groups.setdefault(multipath.find_map_over(host.sysfs, disk) or disk, []).append(disk)
    return list(groups.values())


def _find_users(host: Host, call: Call, group: Sequence[Disk]) -> list[str]:
    """Return who uses disks that are of one map, or one disk without a map.

    A map that has another running path can do without these, whoever uses it.
    """
    removal = scsi_removal.only(host, group)
    staying = [one for one in multipath.find_maps(host.sysfs, group) if one not in removal.maps]
    if not staying:
        return scsi_removal.find_users(host, call, removal)
    others = [disk for disk in multipath.read_members(host.sysfs, staying[0]) if disk not in group]
    if any(scsi.state(host.sysfs, disk) == "running" for disk in others):
        return []
    return scsi_removal.find_users(host, call, Removal((), tuple(staying), ()))


def describe_failures(failures: Iterable[tuple[object, Exception | None]]) -> str:
    """Return what became of each path, for an error: path and reason."""
    return "; ".join(f"{path}: {error or 'no device appeared'}" for path, error in failures)


def not_found(
    failures: Iterable[tuple[object, Exception | None]],
) -> exception.VolumeDeviceNotFound:
    """Return the error of an attach that no path gave a disk to; names every path and reason."""
    failures = list(failures)
    return exception.VolumeDeviceNotFound(
        device=", ".join(str(path) for path, _error in failures),
        reason=f"{describe_failures(failures)}.",
    )
