# SPDX-License-Identifier: Apache-2.0
"""Taking a SCSI volume away from the host: the same for one path and many, for iSCSI and Fibre
Channel.

What will be done is first a value (:class:`Removal`), made by :func:`plan`; then :func:`carry_out`
does it: refuse if somebody uses the volume, write its data out, remove the map,
delete the paths, see that all is gone. Without ``force`` a step that fails ends it with everything
after it in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import block, changes, multipath, scsi, scsi_traces, udev, zfcp
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.multipath import Map
from os_brick.initiator.linux.scsi import Disk
from os_brick.initiator.linux.scsi_plan import Removal as Removal
from os_brick.initiator.linux.scsi_plan import only as only
from os_brick.initiator.linux.scsi_plan import plan as plan

LOG = logging.getLogger(__name__)

# udev, multipathd and LVM open a device for moments to look at it.
_SHORT_USE_S = 10.0
_MAP_TRIES = 3
_MAP_GONE_S = 10.0
# A path that has just failed may take the kernel 30 s to remove (bug 1794829).
_DISK_GONE_S = 40.0
_UDEV_S = 10.0


def detach(
    host: Host,
    call: Call,
    removal: Removal,
    leave: Callable[[], None] | None,
    *,
    force: bool,
    errors: exception.ExceptionChainer,
    flush_limit_s: float,
) -> None:
    """Take a volume away from the host, with all that belongs to it.

    :param leave: ends what its paths came by, once they are gone; None where that stays.
    :param errors: with ``force``, what failed; everything was attempted then.
    :raises BrickException: without ``force``, the first failure; what comes after it is in place.
    """
    carry_out(host, call, removal, force=force, errors=errors, flush_limit_s=flush_limit_s)
    with errors.context(force, "Removing dangling links failed"):
        scsi_traces.unlink_dangling(host, call, removal.identities.values())
    # The log-out does not wait until udev and multipathd have learned that the disks are gone.
    last: dict[str, Callable[[], None]] = {}
    if leave is not None:
        last["what the paths came by is left"] = leave
    last["multipathd has not let go of all paths"] = partial(
        scsi_traces.forget, host, call, removal
    )
    ends = call.each(last, what="last traces of the volume")
    for trouble, end in ends.items():
        with errors.context(force, "After the removal %s", trouble):
            if end.error is not None:
                raise end.error


def carry_out(
    host: Host,
    call: Call,
    removal: Removal,
    *,
    force: bool,
    errors: exception.ExceptionChainer,
    flush_limit_s: float,
) -> bool:
    """Remove a volume's devices.

    :param force: go on after failures and keep them in ``errors``; otherwise the first one is
        raised with all that comes after it in place.
    :returns: whether all its data is known to be on the storage; it always is without force.
    :raises DeviceInUse: somebody uses the volume (without force); nothing was changed.
    :raises WrongVolume: its paths lead to another volume by now (without force).
    :raises ProcessExecutionError: its data is not known to be on the storage (without force).
    """
    if not removal.disks and not removal.maps:
        return True
    LOG.debug("Removing %s", removal)
    if not force:
        _refuse_if_used(host, call, removal)
    wrong = _find_wrong_volume(host, call, removal)
    if wrong is not None and not force:
        raise wrong
    if wrong is not None:
        # Whatever is still in memory must not reach the other volume.
        errors.add_exception(type(wrong), wrong, None)
        _fail_requests(host, call, removal.disks)
        _remove_strangers(host, call, removal, errors)
        flushed = False
    else:
        flushed = _flush(host, call, removal, force, errors, flush_limit_s)
    for one in removal.maps:
        with errors.context(force, "Removing map %s failed", one):
            _remove_map(host, call, one, flush_limit_s)
    if not flushed:
        _fail_requests(host, call, removal.disks)
    with errors.context(
        force, "Removing %s failed", ", ".join(disk.path for disk in removal.disks)
    ):
        _delete(host, call, removal.disks)
    for one in removal.maps:
        if multipath.is_there(host.sysfs, one):
            with errors.context(force, "Map %s is left", one):
                drop_map(host, call, one)
    return flushed


# -- in use ----------------------------------------------------------------------------------
def _refuse_if_used(host: Host, call: Call, removal: Removal) -> None:
    with call.step("look for users") as step:
        users: list[str] = []

        def is_free() -> bool:
            users[:] = find_users(host, call, removal)
            return not users

        if not is_free():
            step.waited_for = "short-lived users"
            call.wait_until(is_free, what="end of use", limit_s=_SHORT_USE_S)
    if users:
        device = removal.maps[0].path if removal.maps else removal.disks[0].path
        raise exception.DeviceInUse(device=device, users="; ".join(users))


def find_users(host: Host, call: Call, removal: Removal) -> list[str]:
    """Return who uses a volume at this moment, readable for people."""
    names = [one.name for one in removal.maps]
    # A map holds its paths exclusively itself, so these are not asked.
    mapped = _mapped(host, removal)
    alone = [disk.name for disk in removal.disks if disk.name and disk.name not in mapped]
    users = block.read_users(host, *names, *mapped, *alone)
    if not users:
        users = [user for one in removal.maps for user in _openers(host, call, one)]
        claims = {name: _claims(host, call, name) for name in alone}
        if any(claims.values()):  # multipathd may just have put it into the map
            joined = _mapped(host, removal)
            users += [user for name in alone if name not in joined for user in claims[name]]
    return users


def _mapped(host: Host, removal: Removal) -> set[str]:
    """Return the kernel names of the paths of a volume's maps."""
    return {name for one in removal.maps for name in multipath.member_names(host.sysfs, one)}


def find_users_of(host: Host, call: Call, disk: Disk) -> list[str]:
    """Return who uses a disk, or the map that it is a path of."""
    over = multipath.find_map_over(host.sysfs, disk)
    removal = Removal((disk,), (), ()) if over is None else Removal((), (over,), ())
    return find_users(host, call, removal)


def _openers(host: Host, call: Call, one: Map) -> list[str]:
    """Return that a map is open, by whomever; ``multipath -f`` would refuse it."""
    count = host.changes.open_count(call, one.label)
    if count is None:
        return _claims(host, call, one.name)
    others = count - block.count_partition_mappings(host.sysfs, one.name)
    return [f"{one.name} is open {others} times in other programs"] if others > 0 else []


def _claims(host: Host, call: Call, name: str) -> list[str]:
    """Return that somebody has a device for himself alone."""
    try:
        if host.dev.exists(name) and host.changes.is_claimed(call, name):
            return [f"{name} is held exclusively by another program"]
    except TimeoutError:
        return [f"{name} cannot be opened: another program's write-out to it does not end"]
    return []


def _find_wrong_volume(host: Host, call: Call, removal: Removal) -> exception.WrongVolume | None:
    """Return what is wrong if data would be written to another volume than it was written for.

    An array that was faster than the detach may have given the LUN to another volume. A path that
    does not answer is no danger: nothing reaches anybody by it.
    """
    if not removal.flush:
        return None
    # After a rescan the kernel believes what a path says now; the map is of what it said before.
    for disk in removal.strangers:
        return exception.WrongVolume(
            device=str(disk),
            reason=f"It leads to {scsi.read_identity(host.sysfs, disk)} now, and its map is of "
            "another volume. Its data was not written; detach with force to remove it.",
        )
    # By the page that was read first: a rescan meanwhile makes the kernel believe the new volume's.
    kept = {
        disk: removal.identities.get(disk)
        or removal.others.get(disk)
        or scsi.read_identity(host.sysfs, disk)
        for disk in (*removal.disks, *removal.others)
        if disk.name and scsi.state(host.sysfs, disk) == "running"
    }
    asked = call.each(
        {str(disk): partial(host.changes.inquire, call, disk) for disk in kept}, what="inquiries"
    )
    for disk, identity in kept.items():
        says = asked[str(disk)].value
        if says is not None and identity.same_as(says) is False:
            return exception.WrongVolume(
                device=str(disk),
                reason=f"It was {identity} and leads to {says} now: the array gave its LUN to "
                "another volume. Its data was not written; detach with force to remove it.",
            )
    return None


def _remove_strangers(
    host: Host, call: Call, removal: Removal, errors: exception.ExceptionChainer
) -> None:
    """With force: have no path of the maps to another volume that is not removed anyway."""
    for disk in removal.strangers:
        if disk not in removal.disks:
            with errors.context(True, "Removing %s failed", disk):
                remove_stale(host, call, disk)


# -- flush -----------------------------------------------------------------------------------
def _flush(
    host: Host,
    call: Call,
    removal: Removal,
    force: bool,
    errors: exception.ExceptionChainer,
    limit_s: float,
) -> bool:
    """Write the data out; tell whether all of it is on the storage."""
    if force:
        for one in removal.maps:
            # With queueing and no path left the write-out would wait for ever, and so would
            # everybody else who opens the map.
            if not multipath.has_running_path(host.sysfs, one):
                multipath.disable_queueing(host, call, one)
    done = True
    for name in removal.flush:
        try:
            with errors.context(force, "Writing out %s failed, its data may be lost", name):
                done = False
                block.sync(host, call, f"/dev/{name}", limit_s)
                if not _has_name(host, removal, name):
                    raise exception.BrickException(
                        f"{name} has gone, whether its data was written out is not known."
                    )
                done = True
        finally:
            if not done and force:
                for one in removal.maps:
                    multipath.disable_queueing(host, call, one)
        if not done:
            break
    return done


def _has_name(host: Host, removal: Removal, name: str) -> bool:
    """Tell whether a name still is that of the volume's own disk or map."""
    return any(
        one.name == name and multipath.is_there(host.sysfs, one) for one in removal.maps
    ) or any(disk.name == name and scsi.is_there(host.sysfs, disk) for disk in removal.disks)


def _fail_requests(host: Host, call: Call, disks: Iterable[Disk]) -> None:
    """Have requests that wait for dead paths fail, so that the deletion does not wait for them."""
    for disk in disks:
        # A blocked device is left alone: the kernel itself fails its requests when it is deleted.
        if scsi.state(host.sysfs, disk) == "running":
            try:
                host.changes.set_offline(call, disk)
            except changes.FAILURES as exc:  # it only would have been faster
                LOG.debug("%s could not be set offline: %s", disk, exc)


# -- map -------------------------------------------------------------------------------------
def _remove_map(host: Host, call: Call, one: Map, limit_s: float) -> None:
    def gone() -> bool:
        return not multipath.is_there(host.sysfs, one)

    for attempt in range(1, _MAP_TRIES + 1):
        # Whoever opened it since it was looked at (udev, on a slow network) gets his seconds.
        call.wait_until(
            lambda: gone() or not _openers(host, call, one), what="end of use", limit_s=_SHORT_USE_S
        )
        if gone():
            return
        result = multipath.remove_map(host, call, one.label, limit_s)
        # With code 0 nothing may have happened (bug 1663925): sysfs has the last word.
        if result.code == 0 and call.wait_until(
            gone, what=f"removal of {one}", limit_s=_MAP_GONE_S
        ):
            return
        if result.code is None or attempt == _MAP_TRIES:
            break
        call.pause(2.0 ** (attempt - 1))
    users = "; ".join(block.read_users(host, one.name)) or result.summary
    if result.code == 1:
        raise exception.DeviceInUse(device=str(one), users=users) from result.error
    result.check()
    raise exception.BrickException(f"Map {one} was not removed: {users}")


def drop_map(host: Host, call: Call, one: Map) -> None:
    """Remove a map whose paths are gone, with whatever it still holds."""

    def gone() -> bool:
        return not multipath.is_there(host.sysfs, one)

    for attempt in range(1, _MAP_TRIES + 1):
        result = multipath.del_map(host, call, one.label)
        if call.wait_until(gone, what=f"removal of {one}", limit_s=_MAP_GONE_S / 4):
            return
        call.pause(2.0 ** (attempt - 1))
    # Its table is replaced by one that fails all I/O, and it goes with its last opener.
    result = host.programs.run(
        call, "dmsetup", "remove", "--force", "--deferred", one.label, limit_s=_MAP_GONE_S
    )
    if not call.wait_until(gone, what=f"removal of {one}", limit_s=_MAP_GONE_S):
        users = "; ".join(block.read_users(host, one.name)) or result.summary
        raise exception.DeviceInUse(
            f"Map {one} is still open and will go with its last user: {users}"
        )


# -- disks -----------------------------------------------------------------------------------
def _delete(host: Host, call: Call, disks: tuple[Disk, ...]) -> None:
    """Delete disks side by side and wait until each of them, not just its name, is gone."""
    tasks = {str(disk): partial(_delete_one, host, call, disk) for disk in disks}
    outcomes = call.each(tasks, what="deletion of the disks")
    failures = [f"{name}: {end.error}" for name, end in outcomes.items() if end.error]
    wait_until_gone(host, call, disks, "; ".join(failures))


def _delete_one(host: Host, call: Call, disk: Disk) -> None:
    unit = zfcp.unit_of(host.sysfs, disk)
    if unit is not None:
        zfcp.remove_unit(host, call, unit)  # with its disk; else the disk would come back
    host.changes.delete(call, disk)


def wait_until_gone(host: Host, call: Call, disks: Sequence[Disk], reason: str = "") -> None:
    """Return when none of these very disks exists any more.

    :param reason: what to say in the error, if their deletion failed.
    :raises VolumePathNotRemoved: some are still there after 40 s.
    """

    remaining: list[Disk] = []

    def gone() -> bool:
        remaining[:] = (disk for disk in disks if scsi.is_there(host.sysfs, disk))
        return not remaining

    if not call.wait_until(gone, what="end of the disks", limit_s=_DISK_GONE_S):
        raise exception.VolumePathNotRemoved(
            volume_path=", ".join(disk.path for disk in remaining), reason=reason
        )


def remove_stale(host: Host, call: Call, disk: Disk) -> None:
    """Remove a disk whose LUN is another volume now, without writing anything to it.

    :raises VolumePathNotRemoved: it is still there.
    """
    LOG.warning("%s is left over from another volume that had its LUN, removing it", disk)
    with call.step(f"remove stale {disk}"):
        old = multipath.find_map_over(host.sysfs, disk)
        number = host.sysfs.text("block", disk.name, "dev")
        if old is not None:
            multipath.del_path(host, call, disk.path)
        # First of all its old data must not be written to the new volume.
        _fail_requests(host, call, [disk])
        _delete(host, call, (disk,))
        if old is not None:
            _remove_if_empty(host, call, old)
        # The new disk will have the old one's links, which udev takes away with the old one.
        call.wait_until(lambda: not udev.knows_removed(host, number), what="udev", limit_s=_UDEV_S)


def _remove_if_empty(host: Host, call: Call, one: Map) -> None:
    """Remove the map of another volume with its last path; one that is in use is left to its user.

    multipathd does it by itself unless somebody, such as udev, had the map open at that moment.
    """

    def gone() -> bool:
        return not multipath.is_there(host.sysfs, one)

    if gone() or multipath.read_members(host.sysfs, one):
        return
    call.wait_until(
        lambda: gone() or not _openers(host, call, one), what="end of use", limit_s=_SHORT_USE_S
    )
    if gone():
        return
    multipath.del_map(host, call, one.label)
    if not call.wait_until(gone, what=f"removal of {one}", limit_s=_MAP_GONE_S):
        LOG.warning("%s of another volume has lost all its paths, and is still in use", one)
