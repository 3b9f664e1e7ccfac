# SPDX-License-Identifier: Apache-2.0
"""udev's links to Fibre Channel paths and maps: names that may exist, and those that lead right.

Services are given such a link instead of ``/dev/sdX``, which may be another disk after a reboot. No
decision about a volume rests on one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from os_brick.initiator.linux import multipath, multipath_lookup, nodes, scsi, udev, zfcp
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.fc import Hba
from os_brick.initiator.linux.fc_paths import FcPath
from os_brick.initiator.linux.fc_volume import FcTarget
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.multipath import Map
from os_brick.initiator.linux.scsi import Disk

BY_PATH = "/dev/disk/by-path"
# udev runs its rules on a new device within moments; a busy one may need seconds.
_LINK_WAIT_S = 10.0

#: Names, below :data:`BY_PATH`, that udev may give the path by a port of this host to a target.
LinkNames = Callable[[Hba, FcTarget], list[str]]


# -- names -----------------------------------------------------------------------------------
def pci_names(hba: Hba, target: FcTarget) -> list[str]:
    """Return the name for a PCI card: ``pci-0000:05:00.3-fc-0x20210002ac00383d-lun-1``."""
    if not hba.bus_address:
        return []
    platform = f"{hba.platform}-" if hba.platform else ""
    lun = scsi.lun_for_by_path(target.lun)
    return [f"{platform}pci-{hba.bus_address}-fc-0x{target.wwpn}-lun-{lun}"]


def vio_names(hba: Hba, target: FcTarget) -> list[str]:
    """Return the name for a virtual adapter of POWER, which has no address in it."""
    return [f"fc-0x{target.wwpn}-lun-{scsi.lun_for_by_path(target.lun)}"]


def ccw_names(hba: Hba, target: FcTarget) -> list[str]:
    """Return the names for a zfcp device, as Red Hat, Debian (bug 1655047) and Ubuntu spell it."""
    if not hba.bus_address:
        return []
    lun = zfcp.fcp_lun(target.lun)
    prefix = f"ccw-{hba.bus_address}"
    names = (
        f"{prefix}-zfcp-0x{target.wwpn}:{lun}",
        f"{prefix}-fc-0x{target.wwpn}-lun-{scsi.lun_for_by_path(target.lun)}",
        f"{prefix}-fc-0x{target.wwpn}-lun-{lun}",
    )
    return list(dict.fromkeys(names))


def names(by: LinkNames, hbas: Iterable[Hba], targets: Iterable[FcTarget]) -> list[str]:
    """Return the names of links that a volume's paths may have, each once; most are never made.

    The kernel may number the LUN by another addressing method than the driver says.
    """
    coded = [FcTarget(one.wwpn, lun) for one in targets for lun in scsi.lun_variants(one.lun)]
    return list(dict.fromkeys(name for hba in hbas for target in coded for name in by(hba, target)))


def names_of(by: LinkNames, path: FcPath, disk: Disk) -> list[str]:
    """Return the names of links that udev may give to a disk at the end of a path."""
    return by(path.hba, FcTarget(path.port.port_name, disk.hctl.lun))


def existing(host: Host, wanted: Iterable[str]) -> list[str]:
    """Return the links of these names that are there now."""
    return [f"{BY_PATH}/{name}" for name in wanted if host.dev.exists("disk/by-path", name)]


# -- links of a device -----------------------------------------------------------------------
def wait_for_disk_link(
    host: Host, call: Call, by: LinkNames, disk: Disk, disks: Mapping[Disk, FcPath]
) -> str | None:
    """Return udev's link to a disk, waiting for udev some seconds; None if it makes none.

    Two disks of a volume may have the same name for a link (on POWER it does not tell the adapter):
    udev gives it to one of them, and either is right.

    :param disks: the volume's disks, this one included, each with its path.
    """
    wanted = names_of(by, disks[disk], disk)
    peers = {one.name for one, path in disks.items() if set(wanted) & set(names_of(by, path, one))}
    links = [f"{BY_PATH}/{name}" for name in wanted]

    def look() -> str | None:
        return next((one for one in links if nodes.kernel_name(host, one) in peers), None)

    return call.wait_until(look, what=f"link to {disk}", limit_s=_LINK_WAIT_S)


def wait_for_map_link(host: Host, call: Call, one: Map) -> str | None:
    """Return udev's link to a map by its wwid, else by its name, waiting for udev some seconds.

    A link that udev has made for this very map stays as long as the map does; the link itself may
    be there before, for a moment.
    """

    def look() -> str | None:
        link = multipath_lookup.find_link(host, one)
        members = multipath.member_names(host.sysfs, one)
        return link if link and udev.is_through(host, one.name, members) else None

    link = call.wait_until(look, what=f"link to {one.name}", limit_s=_LINK_WAIT_S)
    return link or multipath_lookup.find_link(host, one)
