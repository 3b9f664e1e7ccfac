# SPDX-License-Identifier: Apache-2.0
"""The name of a volume as udev and multipath know it (``scsi_wwn``), found without any program."""

from __future__ import annotations

from collections.abc import Iterable

from oslo_log import log as logging

from os_brick.initiator.linux import identity, multipath, nodes, scsi, scsi_volume
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.identity import Identity

LOG = logging.getLogger(__name__)

#: How the kernel spells the kinds of identity in ``device/wwid``, and udev's digit for each.
KINDS = {"t10.": "1", "eui.": "2", "naa.": "3"}
_NAME_STRING = "8"
# Other links by identity are made from weaker statements; these are tried first, in this order.
_PREFERRED_KINDS = "3281S"


def parse_sysfs_wwid(text: str) -> str:
    """Return udev's form of what ``device/wwid`` says (``naa.6001…``); empty if it says nothing."""
    text = text.strip()
    if not text:
        return ""
    digit = KINDS.get(text[:4])
    return identity.normal_form(f"{digit}{text[4:]}" if digit else f"{_NAME_STRING}{text}")


def read_identity(host: Host, names: Iterable[str]) -> Identity:
    """Return the identity of the first of several disks that tells one; empty if none does.

    By its page 0x83. ``device/wwid`` is one designator only; it counts where there are no pages.
    """
    for name in names:
        disk = scsi.read_disk_named(host.sysfs, name)
        found = Identity() if disk is None else scsi.read_identity(host.sysfs, disk)
        if found.ids:
            return found
        one = parse_sysfs_wwid(host.sysfs.text("block", name, "device/wwid"))
        if one:
            return Identity((one,))
    return Identity()


def find_wwn(host: Host, names: Iterable[str], map_name: str | None = None) -> str:
    """Return the name under which udev and multipath know a volume; empty text if it has none.

    :param names: kernel names of its disks.
    :param map_name: kernel name of its map, if there is one.
    """
    names = tuple(names)
    if map_name is not None:
        one = multipath.read_map(host.sysfs, map_name)
        if one is not None and one.wwid:
            return one.wwid
        LOG.warning("The multipath map %s does not tell its wwid", map_name)
    found = read_identity(host, names)
    wwid = scsi_volume.preferred_wwid(host, found)
    if wwid and host.dev.exists(f"disk/by-id/scsi-{wwid}"):
        return wwid
    # udev's rules may name a device after something that is in none of its designators.
    return _find_by_links(host, names) or wwid


def _find_by_links(host: Host, names: tuple[str, ...]) -> str:
    """Return the name in a link of udev's that leads to one of the disks, or to a map on one.

    Once multipathd has made a map, udev's links lead there (bug 1881608).
    """
    wanted = {*names, *(holder for name in names for holder in _holders(host, name))}
    links = [one for one in host.dev.names("disk/by-id") if one.startswith("scsi-")]
    for link in sorted(links, key=_preference):
        if nodes.kernel_name(host, f"/dev/disk/by-id/{link}") in wanted:
            return link.removeprefix("scsi-")
    return ""


def _holders(host: Host, name: str) -> list[str]:
    one = multipath.find_map_on(host.sysfs, name)
    return [] if one is None else [one.name]


def _preference(link: str) -> tuple[int, str]:
    kind = link.removeprefix("scsi-")[:1]
    known = kind in _PREFERRED_KINDS
    return (_PREFERRED_KINDS.index(kind) if known else len(_PREFERRED_KINDS), link)
