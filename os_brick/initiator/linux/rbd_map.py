# SPDX-License-Identifier: Apache-2.0
"""Mapping an RBD image by the kernel's driver, and unmapping it.

The caller holds the volume's lock. Services that do not share a lock directory may map an image
twice at the same time; each looks again then, and all agree on the mapping with the lowest number.
"""

from __future__ import annotations

from collections.abc import Sequence

from oslo_log import log as logging

from os_brick import exception
from os_brick.i18n import _
from os_brick.initiator.linux import block, nodes, rbd_kernel
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.programs import Result
from os_brick.initiator.linux.rbd_kernel import Mapping
from os_brick.initiator.linux.rbd_volume import RbdVolume

LOG = logging.getLogger(__name__)

_WHICH_LIMIT_S = 30.0
# The kernel gives a cluster that does not answer 60 s a step (mount_timeout of rbd(8)).
_MAP_LIMIT_S = 180.0
_UNMAP_LIMIT_S = 120.0
_GONE_LIMIT_S = 30.0
# udev opens each new device, and each that was closed after writing, for moments.
_BUSY_LIMIT_S = 10.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
# `rbd map` has waited for udev by itself; others may have mapped the image just now.
_LINK_LIMIT_S = 5.0
_FORCED_FLUSH_LIMIT_S = 30.0
_EBUSY = 16  # exit codes of rbd are errno values


def attach(host: Host, call: Call, volume: RbdVolume, args: Sequence[str]) -> str:
    """Map an image unless it is mapped, and return the path by which to use it.

    :param args: what ``rbd`` is told about the cluster.
    :raises BrickException: ``rbd`` is not installed.
    :raises WrongVolume: an image of the same names in another cluster is mapped.
    :raises BlockDeviceReadOnly: it is mapped for reading only, but wanted for writing.
    :raises ProcessExecutionError: ``rbd map`` failed, with its words; nothing is left mapped.
    :raises VolumeDeviceNotFound: somebody else unmapped it meanwhile.
    """
    found = _find_before(host, call, volume, args)
    if found is not None:
        path = _usable(host, call, volume, found)
        if _is_left(host, found):  # else its number may be another's by now
            return path
    number = _map(host, call, volume, args)
    try:
        found = _agreed(host, call, volume, number, args)
        path = _unseen(volume) if found is None else _usable(host, call, volume, found)
    except Exception:
        _take_back(host, call, volume, args, number)
        raise
    if found is not None and not _is_left(host, found):
        raise exception.VolumeDeviceNotFound(
            device=found.path, reason=f"{found} was unmapped while it was attached."
        )
    return path


def _usable(host: Host, call: Call, volume: RbdVolume, found: Mapping) -> str:
    """Return the path by which to use a mapping."""
    _wait_for_link(host, call, volume, found)
    if not volume.read_only and host.sysfs.text("class/block", found.name, "ro") == "1":
        raise exception.BlockDeviceReadOnly(device=found.path)
    return _path(host, volume, found)


def _find_before(host: Host, call: Call, volume: RbdVolume, args: Sequence[str]) -> Mapping | None:
    # Without the driver nothing is mapped in this kernel; a link is worth a closer look, though.
    if not rbd_kernel.has_bus(host.sysfs) and nodes.real_node(host, volume.image.link) is None:
        return None
    found = rbd_kernel.find(host, call, volume.image, args)
    for one in found:
        _check_cluster(host, call, volume, one)
    return found[0] if found else None


def _check_cluster(host: Host, call: Call, volume: RbdVolume, mapping: Mapping) -> None:
    """Refuse an image of the same names in another cluster, as far as its monitors tell.

    :raises WrongVolume: none of its monitors is one of the volume's.
    """
    wanted = rbd_kernel.addresses(volume.monitors)
    # A name among them could be any address.
    if not wanted or len(wanted) < len(volume.monitors) or mapping.instance is None:
        return
    found = rbd_kernel.read_monitors(host, call, mapping)
    if found and not found & wanted:
        raise exception.WrongVolume(
            device=mapping.path,
            reason=f"{mapping} is of another cluster: its monitors are {', '.join(sorted(found))}, "
            f"the volume's are {', '.join(sorted(wanted))}.",
        )


def _map(host: Host, call: Call, volume: RbdVolume, args: Sequence[str]) -> int | None:
    """Map an image; return the number of its device, None if ``rbd`` has told none."""
    which = host.programs.run(call, "which", "rbd", limit_s=_WHICH_LIMIT_S, as_root=False)
    if which.code != 0:
        raise exception.BrickException(_("ceph-common package is not installed."))
    image = volume.image
    mode = ("--read-only",) if volume.read_only else ()
    words = ("rbd", "map", image.spec, "--pool", image.pool, *args, *mode)
    result = host.programs.run(call, *words, limit_s=_MAP_LIMIT_S)
    if result.code != 0:
        _take_back(host, call, volume, args)
        result.check()
    return rbd_kernel.parse_device(result.out)


def _agreed(
    host: Host, call: Call, volume: RbdVolume, number: int | None, args: Sequence[str]
) -> Mapping | None:
    """Return the mapping that all use, once an image was mapped; None if nothing tells which it
    is."""
    image = volume.image
    if not rbd_kernel.has_bus(host.sysfs):
        return None if number is None else Mapping(number, image)
    found = rbd_kernel.find(host, call, image, args)
    if not found:
        raise exception.VolumeDeviceNotFound(
            device=f"/dev/rbd{number}" if number is not None else image.link,
            reason=f"'rbd map' succeeded, but the kernel has no mapping of {image}.",
        )
    for other in found[1:]:
        if other.number == number:
            LOG.warning("%s was mapped by another service meanwhile, using %s", image, found[0])
            _unmap(host, call, other, args, force=False)
    return found[0]


def _take_back(
    host: Host, call: Call, volume: RbdVolume, args: Sequence[str], number: int | None = None
) -> None:
    """Unmap what a failed attach has mapped all the same; the first failure counts.

    :param number: of the device that it made; None where that is not known.
    """
    if not rbd_kernel.has_bus(host.sysfs):
        return
    undo = call.later(f"undo of the mapping of {volume}", _UNMAP_LIMIT_S)
    try:
        for mapping in rbd_kernel.find(host, undo, volume.image, args):
            if number not in (None, mapping.number):
                continue  # another's
            _unmap(host, undo, mapping, args, force=False)
    except Exception:
        LOG.warning("Leftovers may remain: %s could not be unmapped", volume, exc_info=True)


def _unseen(volume: RbdVolume) -> str:
    _warn_of_link(volume)
    return volume.image.link


def _wait_for_link(host: Host, call: Call, volume: RbdVolume, mapping: Mapping) -> None:
    link = volume.image.link
    with call.step("wait for udev's link", quiet=True):
        call.wait_until(
            lambda: nodes.real_node(host, link) == mapping.path, what=link, limit_s=_LINK_LIMIT_S
        )


def _path(host: Host, volume: RbdVolume, mapping: Mapping) -> str:
    """Return udev's link if it leads to the mapping, else the mapping's own node."""
    leads_to = nodes.real_node(host, volume.image.link)
    if leads_to == mapping.path:
        return volume.image.link
    if leads_to is None:
        _warn_of_link(volume)
    else:
        LOG.warning("%s leads to %s, not to %s", volume.image.link, leads_to, mapping)
    return mapping.path


def _warn_of_link(volume: RbdVolume) -> None:
    LOG.warning(
        "udev has not made %s: its rules for Ceph are missing or failing (see bug LP#1884114)",
        volume.image.link,
    )


# -- detach ----------------------------------------------------------------------------------
def detach(
    host: Host,
    call: Call,
    volume: RbdVolume,
    args: Sequence[str],
    *,
    force: bool,
    errors: exception.ExceptionChainer,
    flush_limit_s: float,
) -> None:
    """Unmap an image; one that is not mapped is unmapped.

    :param force: attempt everything, at the end ``rbd unmap -o force``, and keep what failed in
        ``errors``.
    :raises WrongVolume: what is mapped is of another cluster; it is left alone.
    :raises DeviceInUse: somebody uses it (without ``force``); nothing was changed.
    :raises ProcessExecutionError: its data could not be written out, or it could not be unmapped
        (without ``force``).
    """
    for mapping in rbd_kernel.find(host, call, volume.image, args):
        with errors.context(force, "%s is left", mapping):
            _check_cluster(host, call, volume, mapping)
            _detach(host, call, mapping, args, force, errors, flush_limit_s)


def _detach(
    host: Host,
    call: Call,
    mapping: Mapping,
    args: Sequence[str],
    force: bool,
    errors: exception.ExceptionChainer,
    flush_limit_s: float,
) -> None:
    if not force:
        _refuse_if_used(host, call, mapping)
    if not _is_left(host, mapping):
        return
    with errors.context(force, "Writing out %s failed", mapping):
        limit_s = min(flush_limit_s, _FORCED_FLUSH_LIMIT_S) if force else flush_limit_s
        block.sync(host, call, mapping.path, limit_s)
    _unmap(host, call, mapping, args, force=force)


def _refuse_if_used(host: Host, call: Call, mapping: Mapping) -> None:
    def users() -> list[str]:
        return block.read_users(host, mapping.name) if _is_left(host, mapping) else []

    with call.step("look for users", quiet=True):
        call.wait_until(lambda: not users(), what="end of use", limit_s=_BUSY_LIMIT_S)
    found = users()
    if found:
        raise exception.DeviceInUse(device=mapping.path, users="; ".join(found))


def _unmap(host: Host, call: Call, mapping: Mapping, args: Sequence[str], *, force: bool) -> None:
    """Unmap, patiently while the device is busy, and see that it is gone."""
    result = _unmap_patiently(host, call, mapping, args)
    if result.code != 0 and force and _is_left(host, mapping):
        words = ("rbd", "unmap", mapping.path, *args, "-o", "force")
        result = host.programs.run(call, *words, limit_s=_UNMAP_LIMIT_S)
    if result.code != 0 and _is_left(host, mapping):
        result.check()
    if mapping.instance is not None and not call.wait_until(
        lambda: not rbd_kernel.is_there(host.sysfs, mapping),
        what=f"{mapping} to go",
        limit_s=_GONE_LIMIT_S,
    ):
        raise exception.VolumePathNotRemoved(volume_path=mapping.path)


def _unmap_patiently(host: Host, call: Call, mapping: Mapping, args: Sequence[str]) -> Result:
    end_s = call.elapsed_s() + _BUSY_LIMIT_S
    pause_s = _FIRST_PAUSE_S
    while True:
        if not _is_left(host, mapping):  # its number may be another's by now
            return Result(0, "", "")
        words = ("rbd", "unmap", mapping.path, *args)
        result = host.programs.run(call, *words, limit_s=_UNMAP_LIMIT_S)
        if result.code != _EBUSY or call.elapsed_s() + pause_s > end_s:
            return result
        call.pause(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _is_left(host: Host, mapping: Mapping) -> bool:
    """Tell whether a mapping is still there, or nobody can say."""
    return mapping.instance is None or rbd_kernel.is_there(host.sysfs, mapping)


def read_size(host: Host, call: Call, volume: RbdVolume, args: Sequence[str]) -> int:
    """Return a mapped image's size in bytes. The driver hears of a new size by itself.

    :raises BrickException: it is not mapped, or was unmapped meanwhile.
    """
    found = rbd_kernel.find(host, call, volume.image, args)
    for one in found:
        _check_cluster(host, call, volume, one)
    size = rbd_kernel.read_size(host.sysfs, found[0]) if found else None
    if size is None or not _is_left(host, found[0]):
        raise exception.BrickException(_("Cannot extend non mapped device."))
    return size
