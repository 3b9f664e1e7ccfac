# SPDX-License-Identifier: Apache-2.0
"""Replicated volumes: namespaces of several subsystems, joined by an md array on this host."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial

from oslo_concurrency import processutils
from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import block, md, nodes, nvme_attach, udev, usage
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.nvme_volume import NvmeVolume

LOG = logging.getLogger(__name__)

_LEVEL = "1"
_ASSEMBLE_TRIES = 3
# udev comes late to events on a busy host; each leg may be one of them.
_UDEV_S = 10.0
_LATE_TRIES = 3


# -- attach ----------------------------------------------------------------------------------
def connect_legs(call: Call, legs: Mapping[str, Callable[[], str]], alias: str) -> list[str]:
    """Attach the legs side by side and return the disks of those that came.

    :param legs: by name, what attaches one and returns its disk's kernel name.
    :raises VolumeDeviceNotFound: none came.
    """
    outcomes = call.each(legs, what="legs of the array")
    for name, outcome in outcomes.items():
        if outcome.error is not None:
            LOG.error("Leg %s of array %s could not be attached: %s", name, alias, outcome.error)
    disks = [outcome.value for outcome in outcomes.values() if outcome.value]
    if not disks:
        told = "; ".join(f"{name}: {outcome.error}" for name, outcome in outcomes.items())
        raise exception.VolumeDeviceNotFound(device=alias, reason=told)
    return disks


def bring_up(
    host: Host,
    call: Call,
    volume: NvmeVolume,
    disks: Sequence[str],
    attempts: Sequence[nvme_attach.Attempt],
) -> str:
    """Have the array of a volume run on its legs and return its path, or the leg's own where it is
    a single one that belongs to no array.

    :param disks: kernel names of the legs that are here.
    :param attempts: those that brought them: while the last one came, the first one may have gone.
    :raises VolumeDeviceNotFound: the array is to be made, but legs are missing; or a leg has gone.
    :raises BrickException: the legs do not belong together, or carry somebody's data.
    :raises ProcessExecutionError: mdadm could not look at a leg: what it holds may be newer than
        what the others hold.
    :raises NotFound: the array did not appear.
    """
    with call.step(f"array {volume.alias}"):
        if volume.is_replicated is None and not md.is_member(host, call, disks[0]):
            _check_legs(attempts)
            return f"/dev/{disks[0]}"
        examined = [md.examine(host, call, disk) for disk in disks]
        members = [one for one in examined if one is not None]
        _check_legs(attempts)
        if volume.is_replicated is None and not members:
            return f"/dev/{disks[0]}"
        if members:
            _add_blank(host, call, volume, disks, members)
            check = partial(_check_legs, attempts)
            start(host, call, volume.md_path, members, volume.read_only, check)
        else:
            _create(host, call, volume, disks, attempts)
        md.wait_for_node(host, call, volume.md_path, disks)
        _check_legs(attempts)
    return volume.md_path


def _check_legs(attempts: Sequence[nvme_attach.Attempt]) -> None:
    """Raise VolumeDeviceNotFound if a leg has gone since: its name may be another volume's now."""
    for attempt in attempts:
        if attempt.disk is not None and not attempt.has_disk():
            raise exception.VolumeDeviceNotFound(
                device=f"/dev/{attempt.disk}",
                reason="The leg was taken away while the others were attached.",
            )


def _add_blank(
    host: Host,
    call: Call,
    volume: NvmeVolume,
    disks: Sequence[str],
    members: Sequence[md.Superblock],
) -> None:
    """Tell of legs that are no members: they are not given data of the array unasked."""
    blank = sorted(set(disks) - {one.disk for one in members})
    if blank:
        LOG.warning(
            "%s carry no part of array %s, which goes without them", ", ".join(blank), volume.alias
        )


def _create(
    host: Host,
    call: Call,
    volume: NvmeVolume,
    disks: Sequence[str],
    attempts: Sequence[nvme_attach.Attempt],
) -> None:
    if len(disks) < volume.replica_count:
        LOG.error("Array %s cannot be made: cannot create MD of too few legs", volume.alias)
        raise exception.VolumeDeviceNotFound(
            device=volume.alias,
            reason=f"cannot create MD: the new array needs {volume.replica_count} legs, "
            f"{len(disks)} are here.",
        )
    for disk in disks:
        found = md.signature_of(host, call, disk)
        if found:
            raise exception.BrickException(
                f"cannot create MD: /dev/{disk} carries data already ({found}). The array "
                f"{volume.alias} was not made."
            )
    _check_legs(attempts)
    md.create(host, call, volume.alias, _LEVEL, disks, volume.read_only)


def start(
    host: Host,
    call: Call,
    path: str,
    members: Sequence[md.Superblock],
    read_only: bool,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Have the array of some members run under a path, with every member that is here.

    udev may have started it already, under this name or another, whole or not.

    :param check: raises if a member's name is not its own any more; asked before each use of names.
    :raises BrickException: they do not belong together, or it could not be started.
    """
    fresh, stale = md.choose(members)
    names = [one.disk for one in fresh]
    for attempt in range(1, _ASSEMBLE_TRIES + 1):
        check()
        if _settle_running(host, call, path, [*names, *(one.disk for one in stale)]) is not None:
            break
        check()
        try:
            md.assemble(host, call, path, names, read_only)
            break
        except processutils.ProcessExecutionError:
            # udev starts arrays too, and may just have been faster.
            if attempt == _ASSEMBLE_TRIES:
                raise
            call.pause(float(attempt))
    array = md.wait_for_node(host, call, path, [one.disk for one in members])
    if not read_only:
        there = set(md.members_of(host.sysfs, array))
        for disk in [*names, *(one.disk for one in stale)]:
            if disk not in there:
                _add_again(host, call, path, disk, check)


def _settle_running(host: Host, call: Call, path: str, disks: Sequence[str]) -> str | None:
    """Return the array that runs on the legs under the right name; stop one of another name."""
    wanted = nodes.kernel_name(host, path)
    for array in md.find_array(host.sysfs, disks):
        if array == wanted and md.is_running(host.sysfs, array):
            return array
        LOG.info("Array %s of the legs is not %s or does not run, stopping it", array, path)
        instance = host.sysfs.instance("block", array)
        usage.refuse_if_used(host, call, [array])
        md.stop(host, call, array, instance)
    return None


def _add_again(host: Host, call: Call, path: str, disk: str, check: Callable[[], None]) -> None:
    try:
        md.add_again(host, call, path, disk, check)
    except processutils.ProcessExecutionError as exc:
        # The array runs on the others; with the next attach it is tried again.
        LOG.warning("%s could not be given back to array %s: %s", disk, path, exc)


# -- detach ----------------------------------------------------------------------------------
def arrays_of(host: Host, volume: NvmeVolume, legs: Sequence[str]) -> dict[str, int]:
    """Return the kernel names of a volume's arrays on its legs, and of the one with its name if
    that has lost all legs, with their instances.

    A leg that is gone stays among the array's ``slaves``, as a link that leads nowhere or to a
    later disk of its name: only the array is no holder of that.

    :raises OSError: the host could not be looked at.
    """
    found = md.find_array(host.sysfs, legs)
    named = nodes.kernel_name(host, volume.md_path)
    if (
        named
        and named not in found
        and host.sysfs.exists("block", named, "md")
        and named not in md.find_array(host.sysfs, md.members_of(host.sysfs, named))
    ):
        found.append(named)
    return instances(host, found)


def instances(host: Host, names: Iterable[str]) -> dict[str, int]:
    """Return the instances of the block devices of some names that are there."""
    found = {name: host.sysfs.instance("block", name) for name in names}
    return {name: instance for name, instance in found.items() if instance is not None}


def end(
    host: Host,
    call: Call,
    volume: NvmeVolume,
    arrays: Mapping[str, int],
    legs: Mapping[str, int],
    *,
    writable: bool,
    force: bool,
    errors: exception.ExceptionChainer,
    flush_limit_s: float,
) -> None:
    """Write a volume's arrays out and stop them.

    :param legs: the disks that they are of, and nobody else's array, with their instances.
    :param writable: whether any leg can be written to; with ``force`` it is not tried otherwise.
    :raises DeviceInUse: somebody uses it (also with ``force``, into ``errors``).
    :raises ProcessExecutionError: its data is not known to be on the storage (without ``force``).
    """
    if not force:
        usage.refuse_if_used(host, call, list(arrays))
    for array, instance in arrays.items():
        with errors.context(force, "Writing out %s failed, its data may be lost", array):
            if force and not writable:
                raise exception.BrickException(f"No leg of {array} can be used to write it out.")
            if host.sysfs.instance("block", array) != instance:
                raise exception.BrickException(f"{array} has ended by itself.")
            if md.is_running(host.sysfs, array):
                block.sync(host, call, f"/dev/{array}", flush_limit_s)
                if host.sysfs.instance("block", array) != instance:
                    raise exception.BrickException(f"{array} has ended by itself.")
    for array, instance in arrays.items():
        with errors.context(force, "Array %s was not stopped", array):
            md.stop(host, call, array, instance)
    if arrays:
        with errors.context(force, "What udev made of the legs of %s stays", volume.alias):
            _stop_added_late(host, call, legs)
    md.unlink(host, call, volume.md_path)


def _stop_added_late(host: Host, call: Call, legs: Mapping[str, int]) -> None:
    """Stop what udev makes of legs when it comes to an event from before their array's end: its
    rule has mdadm add each member that it sees to an array (``mdadm --incremental``).

    :raises DeviceInUse: somebody uses it.
    """

    def made() -> dict[str, int]:
        found = instances(host, md.find_array(host.sysfs, legs))
        # A leg's name may be another volume's by now, and the array on it that one's.
        same = {leg for leg, one in instances(host, legs).items() if one == legs[leg]}
        ours = md.find_array(host.sysfs, same)
        return {array: one for array, one in found.items() if array in ours}

    def is_through() -> bool:
        return bool(made()) or not udev.has_events(host)

    for _ in range(_LATE_TRIES):
        call.wait_until(is_through, what="udev", limit_s=_UDEV_S)
        found = made()
        for array, instance in found.items():
            LOG.warning("udev has made %s of the legs when their array had ended", array)
            usage.refuse_if_used(host, call, [array])
            md.stop(host, call, array, instance)
        if not found:
            return


def set_aside(host: Host, call: Call, arrays: Iterable[str], wrong: Collection[str]) -> list[str]:
    """Have arrays go on without legs that are other volumes by now, so that nothing more is written
    to those.

    :param wrong: kernel names of these legs.
    :returns: the arrays that would write to them still, as they have no other leg.
    """
    doomed: dict[str, None] = {}
    for array in arrays:
        for disk in [one for one in md.members_of(host.sysfs, array) if one in wrong]:
            try:
                md.fail(host, call, array, disk)
            except processutils.ProcessExecutionError as exc:
                LOG.error("Array %s does not go on without %s: %s", array, disk, exc)
                doomed[array] = None
    return list(doomed)


def stop_unused(
    host: Host,
    call: Call,
    legs: Sequence[str],
    spared: Collection[str],
    arrays: Mapping[str, int] | None = None,
) -> None:
    """Stop arrays that nobody uses, to clean up. Never raises.

    :param legs: whose arrays are stopped.
    :param spared: arrays that stay.
    :param arrays: further ones to stop, with their instances: their names may be others' by now.
    """
    try:
        found = instances(host, md.find_array(host.sysfs, legs)) | dict(arrays or {})
    except OSError as exc:
        LOG.warning("Whether arrays are left cannot be seen: %s", exc)
        return
    for array, instance in found.items():
        try:
            if array in spared or host.sysfs.instance("block", array) != instance:
                continue
            usage.refuse_if_used(host, call, [array])
            md.stop(host, call, array, instance)
        except Exception as exc:  # noqa: BLE001 - the first cause is what the caller must see
            LOG.warning("Array %s is left: %s", array, exc)


def undo(
    host: Host, call: Call, attempts: Sequence[nvme_attach.Attempt], before: Sequence[str]
) -> None:
    """Take away what a failed attach made; an array that does not stop keeps its legs. Never
    raises.

    :param attempts: those of its legs.
    :param before: the array that was there before, if any.
    """
    stop_unused(host, call, [one.disk for one in attempts if one.disk and _has_disk(one)], before)
    going = []
    for attempt in attempts:
        if attempt.disk and _has_disk(attempt) and _is_held(host, attempt.disk):
            LOG.warning("%s stays attached, an array holds it", attempt.disk)
        else:
            going.append(attempt)
    for attempt in going:
        # Legs may be of one subsystem, so that one has made the controller of the other.
        attempt.take_back(lambda one: any(other.is_ours(one) for other in going))


def _has_disk(attempt: nvme_attach.Attempt) -> bool:
    try:
        return attempt.has_disk()
    except OSError as exc:
        LOG.warning("Whether %s is still there cannot be seen: %s", attempt.disk, exc)
        return True


def _is_held(host: Host, disk: str) -> bool:
    """Tell whether a disk is a leg of an array that is there; yes if that cannot be seen."""
    try:
        return bool(md.find_array(host.sysfs, [disk]))
    except OSError as exc:
        LOG.warning("Whether an array holds %s cannot be seen: %s", disk, exc)
        return True


# -- extend ----------------------------------------------------------------------------------
def is_array(host: Host, volume: NvmeVolume, legs: Sequence[str]) -> bool:
    """Tell whether a volume is used as an array; a single leg is handed out as it is, and what has
    made an array of that under another name may be udev.

    :raises OSError: the host could not be looked at.
    """
    if volume.is_replicated:
        return True
    named = nodes.kernel_name(host, volume.md_path) if volume.alias else None
    return named is not None and named in md.find_array(host.sysfs, legs)


def grow(host: Host, call: Call, volume: NvmeVolume, legs: Sequence[str]) -> int:
    """Have a volume's array use the new size of its legs, and return its size in bytes.

    :raises VolumeDeviceNotFound: it does not run.
    :raises ProcessExecutionError: mdadm could not.
    """
    array = nodes.kernel_name(host, volume.md_path)
    ours = md.find_array(host.sysfs, legs)  # the link may be left, and its number another's by now
    if array is None or array not in ours or not md.is_running(host.sysfs, array):
        raise exception.VolumeDeviceNotFound(device=volume.md_path)
    md.grow(host, call, volume.md_path)
    size = block.read_size(host.sysfs, array)
    if not size:
        raise exception.BrickException(f"The size of {volume.md_path} cannot be read.")
    return size
