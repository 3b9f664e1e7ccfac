# SPDX-License-Identifier: Apache-2.0
"""Devices of PowerFlex (ScaleIO) volumes on this host, found by udev's links ``emc-vol-…-<id>``."""

from __future__ import annotations

from collections.abc import Callable, Collection

from os_brick import exception
from os_brick.initiator.linux import nodes, udev
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.vendors import device

SEARCH_PATH = "/dev/disk/by-id"
_FOLDER = "disk/by-id"
_PREFIX = "emc-vol"
_APPEARS_S = 15.0
_GONE_S = 15.0
_SIZE_S = 6.0
# The client asks storage, and tells the kernel a moment later.
_RESCANS = 3


def find(host: Host, volume_id: str) -> str | None:
    """Return the link to a volume's device; None if there is none that leads anywhere.

    :raises WrongVolume: two systems have a volume with this id here.
    :raises OSError: the host could not be looked at.
    """
    # The id stands behind that of its system; a part of an id is another's.
    names = [
        name
        for name in host.dev.names(_FOLDER)
        if volume_id
        and name.startswith(_PREFIX)
        and name.endswith(f"-{volume_id}")
        and host.dev.exists(_FOLDER, name)
    ]
    leads = {nodes.real_node(host, f"{SEARCH_PATH}/{name}") for name in names}
    if len(leads) > 1:
        raise exception.WrongVolume(
            device=", ".join(f"{SEARCH_PATH}/{name}" for name in names),
            reason=f"Several systems have a volume {volume_id} on this host.",
        )
    return f"{SEARCH_PATH}/{names[0]}" if names else None


def wait_for(host: Host, call: Call, volume_id: str) -> str:
    """Return the link to a volume's device as soon as it is there.

    :raises VolumeDeviceNotFound: it has not come within 15 seconds.
    """

    def settled() -> str | None:
        # While udev is behind, the link may be that of an earlier mapping, and the device that it
        # leads to another volume's by now.
        return None if udev.has_events(host) else find(host, volume_id)

    with call.step(f"wait for the device of {volume_id}") as step:
        step.waited_for = "its link"
        path = call.wait_until(settled, what=f"device of {volume_id}", limit_s=_APPEARS_S)
        path = path or find(host, volume_id)
        if path is None:
            # The directory comes with udev's first link.
            where = "" if host.dev.exists(_FOLDER) else " at expected path"
            raise exception.VolumeDeviceNotFound(
                f"ScaleIO volume {volume_id} not found{where}. Is it mapped to this host, and is "
                "its client (scini) running?"
            )
    return path


def same(host: Host, path: str | None, used: str) -> set[str]:
    """Return the paths that lead to a volume's device: its link, and the path that its user had.

    What a caller has kept may belong to another volume by now: then it does not count.
    """
    if path is None:
        return set()
    node = nodes.real_node(host, path)
    return {path, used} if used and nodes.real_node(host, used) == node else {path}


def wait_until_gone(host: Host, call: Call, paths: Collection[str]) -> None:
    """Return when none of these paths leads anywhere: a later volume may get the same one.

    :raises VolumePathNotRemoved: one still does after 15 seconds.
    """

    def left() -> list[str]:
        return [path for path in sorted(paths) if nodes.real_node(host, path) is not None]

    with call.step("wait until the device is gone", quiet=True) as step:
        step.waited_for = "the end of its link"
        call.wait_until(lambda: not left(), what="end of the device", limit_s=_GONE_S)
        remaining = left()
        if remaining:
            raise exception.VolumePathNotRemoved(volume_path=", ".join(remaining))


def extend(
    host: Host, call: Call, path: str, wanted: int | None, rescan: Callable[[Call], None]
) -> int:
    """Have the client take notice of a device's new size, and return it in bytes.

    :param wanted: the size that storage tells; None if it is not known. Then a size that does not
        change within some seconds is taken for the new one: the client may have heard of it before.
    :param rescan: has the client ask storage.
    :raises BrickException: the device has not taken the size wanted, or is gone.
    """
    before = device.read_size(host, path)

    def taken() -> bool:
        size = device.read_size(host, path)
        return size == wanted if wanted is not None else size != before

    for _attempt in range(_RESCANS):
        rescan(call)
        limit_s = _SIZE_S / _RESCANS
        if call.wait_until(taken, what=f"new size of {path}", limit_s=limit_s):
            break
    size = device.read_size(host, path)
    if size is None:
        raise exception.BrickException(f"Error extending ScaleIO volume: {path} is gone")
    if wanted is not None and size != wanted:
        raise exception.BrickException(
            f"Error extending ScaleIO volume: {path} has {size} bytes, storage says {wanted}"
        )
    return size
