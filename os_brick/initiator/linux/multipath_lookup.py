# SPDX-License-Identifier: Apache-2.0
"""Finding a multipath map by something other than its disks: a wwid, a name, a path, the listing.

For Fibre Channel and for callers of :class:`os_brick.initiator.linuxscsi.LinuxSCSI`. Whoever knows
a disk of the volume asks :func:`os_brick.initiator.linux.multipath.find_map_over`, which looks at
one directory.
"""

from __future__ import annotations

from collections.abc import Collection

from os_brick import exception
from os_brick.initiator.linux import multipath, nodes
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.multipath import Map
from os_brick.initiator.linux.multipath_listing import ListedMap, parse_listing

# As long as existing callers have waited for links to come.
_LINK_WAIT_S = 6.0
_LIST_LIMIT_S = 60.0


def find_map(host: Host, text: str) -> Map | None:
    """Return the map that a text names: kernel name, path, name for the tools, or wwid.

    :raises OSError: the host could not be looked at.
    """
    if text.startswith("/"):
        name = nodes.kernel_name(host, text)
        return None if name is None else multipath.read_map(host.sysfs, name)
    found = multipath.read_map(host.sysfs, text) if text.startswith("dm-") else None
    return found or find_by_link(host, text) or _find_by_search(host, text)


def find_by_link(host: Host, text: str) -> Map | None:
    """Return the map that udev's link of a name or wwid leads to, if it is that map in truth."""
    for link in (f"/dev/disk/by-id/dm-uuid-mpath-{text}", f"/dev/mapper/{text}"):
        name = nodes.kernel_name(host, link)
        found = None if name is None else multipath.read_map(host.sysfs, name)
        if found is not None and text in (found.wwid, found.label):
            return found
    return None


def _find_by_search(host: Host, text: str) -> Map | None:
    """Return the map of a name or wwid by looking at all maps: udev may be late, or not there."""
    for name in host.sysfs.names("block"):
        found = multipath.read_map(host.sysfs, name) if name.startswith("dm-") else None
        if found is not None and text in (found.wwid, found.label):
            return found
    return None


def find_map_of(host: Host, wwids: Collection[str]) -> Map | None:
    """Return the map of a volume that is known by any of these wwids.

    :raises OSError: the host could not be looked at.
    """
    for wwid in wwids:
        found = find_by_link(host, wwid)
        if found is not None and found.wwid == wwid:
            return found
    for name in host.sysfs.names("block") if wwids else ():
        found = multipath.read_map(host.sysfs, name) if name.startswith("dm-") else None
        if found is not None and found.wwid in wwids:
            return found
    return None


def wait_for_map_path(host: Host, call: Call, wwid: str) -> str | None:
    """Return a path of the map of a wwid, waiting some seconds for it; None if it does not come.

    :returns: udev's link by wwid, else that by name, else (udev is late) the node itself.
    """
    found = call.wait_until(
        lambda: find_map(host, wwid), what=f"map of {wwid}", limit_s=_LINK_WAIT_S
    )
    return None if found is None else find_link(host, found) or found.path


def find_link(host: Host, one: Map) -> str | None:
    """Return udev's link to a map by its wwid, else the one by its name; None if neither leads
    there."""
    for link in (f"/dev/disk/by-id/dm-uuid-mpath-{one.wwid}", f"/dev/mapper/{one.label}"):
        if nodes.kernel_name(host, link) == one.name:
            return link
    return None


def list_map(host: Host, call: Call, device: str) -> ListedMap | None:
    """Return the map over a device as ``multipath -l`` lists it; None if it lists none.

    It becomes slower with every map on the host (bug 1487169).

    :param device: a path of the volume; links are followed, the tool knows no links (bug 1585940).
    :raises CommandExecutionFailed: the program failed.
    """
    real = nodes.real_node(host, device) or device
    result = host.programs.run(call, "multipath", "-l", real, limit_s=_LIST_LIMIT_S)
    if result.code != 0:
        raise exception.CommandExecutionFailed(
            cmd=f"multipath -l {real}", reason=result.summary
        ) from result.error
    found = parse_listing(result.out)
    return found if found is not None and host.dev.exists("mapper", found.name) else None
