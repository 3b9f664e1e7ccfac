# SPDX-License-Identifier: Apache-2.0
"""What may be left of a SCSI volume when its devices are gone: multipathd's paths, udev's links."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from os_brick import exception
from os_brick.initiator.linux import multipath, scsi, udev
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.identity import Identity
from os_brick.initiator.linux.scsi_plan import Removal

# It hears of a removal by udev, mostly in a tenth of a second; each question costs it more with
# every path of the host.
_DAEMON_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 2.0)
_UDEV_S = 10.0


def forget(host: Host, call: Call, removal: Removal) -> None:
    """See that multipathd has let go of removed paths; tell it to if it has not by itself.

    A path counts only under its name *and* address: the name alone may be a new device's already.

    :raises MultipathdPathsNotRemoved: it monitors some of them still.
    """
    # udev hears of the end of a disk first and tells multipathd; asked before that, it would have
    # to be asked again. Where there was no map that is all: it only watched the path.
    call.wait_until(
        lambda: not any(udev.knows_removed(host, number) for number in removal.numbers),
        what="udev",
        limit_s=_UDEV_S,
    )
    if not removal.maps:
        return
    ours = {
        (disk.name, str(disk.hctl))
        for disk in removal.disks
        if scsi.read_disk(host.sysfs, disk.hctl) is None
    }
    see_let_go(host, call, lambda known: ours & known)


def see_let_go(
    host: Host, call: Call, ours: Callable[[set[tuple[str, str]]], set[tuple[str, str]]]
) -> None:
    """See that multipathd monitors none of certain paths; tell it to stop if it does not by itself.

    :param ours: picks them from the (kernel name, H:C:T:L) of all that it monitors.
    :raises MultipathdPathsNotRemoved: it monitors some of them still.
    """
    remaining: set[tuple[str, str]] = set()
    for pause_s in (0, *_DAEMON_PAUSES_S):
        call.pause(pause_s)
        known = multipath.known_paths(host, call)
        remaining = ours(known) if known is not None else set()
        if not remaining:
            break
    kept = [
        name
        for name, _hctl in sorted(remaining)
        if not multipath.del_path(host, call, f"/dev/{name}")
    ]
    if kept:
        raise exception.MultipathdPathsNotRemoved(devices=kept)


def unlink_dangling(host: Host, call: Call, identities: Iterable[Identity]) -> None:
    """Remove links by identity that udev left dangling."""
    names = {
        f"disk/by-id/{name}"
        for identity in identities
        for one in identity.ids
        for name in (f"scsi-{one}", f"wwn-0x{one[1:]}" if one[0] == "3" else f"scsi-{one}")
    }
    dangling = [
        f"/dev/{name}"
        for name in sorted(names)
        if host.dev.link_target(name) is not None and not host.dev.exists(name)
    ]
    if dangling:
        host.changes.unlink(call, *dangling)


def unlink_dangling_to(host: Host, call: Call, names: Collection[str]) -> None:
    """Remove links by identity that dangle since these kernel names are gone.

    For where the identities are not known: it looks at all links of the host.
    """
    dangling = [
        f"/dev/disk/by-id/{link}"
        for link in host.dev.names("disk/by-id")
        if link.startswith("scsi-")
        and host.dev.link_name("disk/by-id", link) in names
        and not host.dev.exists("disk/by-id", link)
    ]
    if dangling:
        host.changes.unlink(call, *dangling)
