# SPDX-License-Identifier: Apache-2.0
"""Having a SCSI volume's devices take the size that its storage has given it.

All or nothing: the kernel loads a map's table only if every path in it is large enough, so every
path is asked before the first one is touched (bug 2032177). What comes out is the true size of the
device that the caller uses, or an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from oslo_concurrency import processutils
from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import block, changes, multipath, nodes, scsi, scsi_volume
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.multipath import Map
from os_brick.initiator.linux.programs import Result
from os_brick.initiator.linux.scsi import Disk

LOG = logging.getLogger(__name__)

#: A multipathd that reads its configuration answers ``timeout``; asked again so long (bug 1888675).
RESIZE_LIMIT_S = 120
_RESIZE_PAUSE_S = 1.0
# One controller of an array may know the new size a little later than the other.
_SAME_SIZE_S = 15.0
_FIRST_PAUSE_S = 0.25
# multipathd has loaded the new table when it answers.
_MAP_GROWTH_S = 10.0


def extend(host: Host, call: Call, disks: Sequence[Disk], one: Map | None) -> int:
    """Have the kernel and multipathd take notice of a volume's new size.

    :param disks: the volume's paths; those of the map are added.
    :param one: the map over them that the caller uses, if there is one.
    :returns: the size in bytes of the map, or without a map of the disks.
    :raises VolumePathsNotFound: there is no path at all.
    :raises BrickException: a path does not answer that the map needs (nothing was touched); the
        paths do not come to one size; the map did not take the size of its paths.
    :raises WrongVolume: a path leads to another volume by now (nothing was touched).
    :raises ProcessExecutionError: multipathd could not resize the map.
    """
    members = multipath.read_members(host.sysfs, one) if one is not None else []
    everyone = tuple(dict.fromkeys((*disks, *members)))
    if not everyone:
        raise exception.VolumePathsNotFound()
    scsi_volume.check_same_volume(host, everyone, [one] if one is not None else [])
    alive = _living(host, call, everyone, members)
    size = _grow_paths(host, call, alive)
    if one is not None:
        with call.step(f"resize {one}") as step:
            step.outcome = _grow_map(host, call, one, size)
    return size


def extend_paths(host: Host, call: Call, paths: Sequence[str]) -> int:
    """Extend the volume that some paths or links lead to, see :func:`extend`.

    :raises BrickException: a path leads nowhere, and no map makes up for it; or two paths lead to
        different maps.
    """
    names = {path: nodes.kernel_name(host, path) for path in paths}
    disks = {path: scsi.read_disk_named(host.sysfs, name) for path, name in names.items() if name}
    named = [multipath.read_map(host.sysfs, name) for name in names.values() if name]
    found = [disk for disk in disks.values() if disk is not None]
    maps = dict.fromkeys((*multipath.find_maps(host.sysfs, found), *filter(None, named)))
    if len(maps) > 1:
        raise exception.BrickException(
            f"The paths {', '.join(paths)} lead to different maps: {', '.join(map(str, maps))}."
        )
    one = next(iter(maps), None)
    lost = [path for path, name in names.items() if name is None]
    if lost and one is None:
        raise exception.BrickException(
            f"All paths need to be up to extend the device. No device: {', '.join(lost)}"
        )
    if lost:
        LOG.warning("Extending %s without paths that have no device: %s", one, ", ".join(lost))
    return extend(host, call, found, one)


# -- before anything is touched --------------------------------------------------------------------
def _living(
    host: Host, call: Call, disks: Sequence[Disk], members: Sequence[Disk]
) -> tuple[Disk, ...]:
    """Return the paths that answer, if the volume can be extended without the others."""
    tasks = {str(disk): partial(_trouble, host, call, disk) for disk in disks}
    outcomes = call.each(tasks, what="answers of the paths")
    down: dict[Disk, str] = {}
    for disk in disks:
        outcome = outcomes[str(disk)]
        if isinstance(outcome.error, exception.WrongVolume):
            raise outcome.error
        trouble = str(outcome.error) if outcome.error else outcome.value
        if trouble:
            down[disk] = trouble
    if not down:
        return tuple(disks)
    told = "; ".join(f"{disk}: {trouble}" for disk, trouble in down.items())
    # A path in the map's table would keep its old size, and the kernel refuse a larger table ("too
    # small for target"). Without one that multipathd has let go of, the map can grow.
    if not members or not set(members).isdisjoint(down):
        raise exception.BrickException(f"All paths need to be up to extend the device. {told}")
    LOG.warning("Extending without the paths that are down, they keep their old size: %s", told)
    return tuple(disk for disk in disks if disk not in down)


def _trouble(host: Host, call: Call, disk: Disk) -> str:
    """Return why a path cannot be used; empty text if it answers, as the volume it was.

    :raises WrongVolume: it answers as another one.
    """
    state = scsi.state(host.sysfs, disk)
    if state != "running":
        return f"state {state}" if state else "gone"
    if not disk.name:
        return "no disk driver has taken it"
    kept = scsi.read_identity(host.sysfs, disk)
    if not kept.ids or kept.wwid.startswith("S"):
        return ""  # It has no page 0x83 to be asked for; its rescan will tell.
    try:
        says = host.changes.inquire(call, disk)
    except changes.FAILURES as exc:
        return str(exc) or type(exc).__name__
    if says is None:
        return "no such LUN on the target any more"
    if kept.same_as(says) is False:
        raise exception.WrongVolume(
            device=disk.path,
            reason=f"{disk} was {kept} and says now that it is {says}: its LUN leads to another "
            "volume. Detach the volume and attach it again.",
        )
    return ""


# -- paths -----------------------------------------------------------------------------------------
def _grow_paths(host: Host, call: Call, disks: Sequence[Disk]) -> int:
    """Rescan disks until all show one and the same size, and return it in bytes."""
    end_s = call.elapsed_s() + _SAME_SIZE_S
    pause_s = _FIRST_PAUSE_S
    # Only a rescan has the kernel read a size again, so waiting without one would be in vain.
    while True:
        failures = _rescan(host, call, disks)
        size = call.wait_until(
            partial(_common_size, host, disks, failures),
            what="one size on all paths",
            limit_s=pause_s,
        )
        if size:
            return size
        if call.remaining_s() <= 0 or call.elapsed_s() >= end_s:
            raise exception.BrickException(_differing(_sizes(host, disks), failures))
        pause_s *= 2


def _rescan(host: Host, call: Call, disks: Sequence[Disk]) -> dict[Disk, Exception]:
    """Have the kernel read all sizes again, side by side; return what failed."""
    tasks = {str(disk): partial(host.changes.rescan, call, disk) for disk in disks}
    outcomes = call.each(tasks, what="rescan of the paths")
    failures = {disk: outcomes[str(disk)].error for disk in disks}
    return {disk: error for disk, error in failures.items() if error is not None}


def _common_size(host: Host, disks: Sequence[Disk], failures: Mapping[Disk, Exception]) -> int:
    """Return the one size of all disks; 0 as long as there is none."""
    sizes = set(_sizes(host, disks).values())
    return sizes.pop() or 0 if len(sizes) == 1 and not failures else 0


def _sizes(host: Host, disks: Iterable[Disk]) -> dict[Disk, int | None]:
    """Return the size of each disk in bytes; None of one that is gone."""
    sizes = {disk: block.read_size(host.sysfs, disk.name) for disk in disks}
    # Looked at afterwards, so that no later disk of the same name was measured.
    return {disk: size if scsi.is_there(host.sysfs, disk) else None for disk, size in sizes.items()}


def _differing(sizes: Mapping[Disk, int | None], failures: Mapping[Disk, Exception]) -> str:
    told = []
    for disk, size in sizes.items():
        text = f"{disk} is gone" if size is None else f"{disk} has {size} bytes"
        told.append(f"{text} (its rescan failed: {failures[disk]})" if disk in failures else text)
    return (
        f"The paths do not come to one size: {'; '.join(told)}. Extend the volume again when its "
        "storage shows the new size on all of them."
    )


# -- map -------------------------------------------------------------------------------------------
def _grow_map(host: Host, call: Call, one: Map, size: int) -> str:
    """Have a map take the size that its paths have; return what was done about it."""
    before = block.read_size(host.sysfs, one.name)
    if before == size and multipath.is_there(host.sysfs, one):
        return f"has {size} bytes already"
    if before is not None and before > size:
        raise exception.BrickException(
            f"Map {one} has {before} bytes but its paths only {size}: it was not made smaller."
        )
    ask_daemon(host, call, one, partial(_has_size, host, one, size))
    call.wait_until(partial(_has_size, host, one, size), what="map's size", limit_s=_MAP_GROWTH_S)
    if not _has_size(host, one, size):
        shown = block.read_size(host.sysfs, one.name)
        raise exception.BrickException(
            f"Map {one} did not take the size of its paths: it has {shown} bytes, they have {size}."
            " Look at multipathd's log and extend the volume again."
        )
    return f"{before} to {size} bytes"


def _has_size(host: Host, one: Map, size: int) -> bool:
    return block.read_size(host.sysfs, one.name) == size and multipath.is_there(host.sysfs, one)


def ask_daemon(
    host: Host, call: Call, one: Map, is_done: Callable[[], bool] = lambda: False
) -> None:
    """Have multipathd give a map the size of its paths; again while it is busy, for 120 s.

    :param is_done: tells that the map has the size already: the daemon may do what it was asked for
        though its client has given up.
    :raises ProcessExecutionError: it could not, or was busy all the time.
    """
    end_s = call.elapsed_s() + RESIZE_LIMIT_S
    while True:
        result = multipath.resize_map(host, call, one)
        if "timeout" not in result.out:
            break
        if is_done():
            return
        if min(end_s - call.elapsed_s(), call.remaining_s()) <= _RESIZE_PAUSE_S:
            raise _refusal(one, result, "multipathd is busy")
        call.pause(_RESIZE_PAUSE_S)
    if "fail" in result.out:
        raise _refusal(one, result, "multipathd could not do it, its log says why")
    result.check()


def _refusal(one: Map, result: Result, why: str) -> processutils.ProcessExecutionError:
    return processutils.ProcessExecutionError(
        stdout=result.out,
        stderr=result.err,
        exit_code=1,
        cmd=f"multipathd resize map {one.path}",
        description=f"Resizing map {one} failed: {why}",
    )
