# SPDX-License-Identifier: Apache-2.0
"""The bare minimum for Fibre Channel: one write for each path, each way, and its map's programs.

What is handed out is udev's link, as both libraries do: a kernel name may be another device's
after a reboot.  The detach is a safe one: nobody uses the volume, it is still the one that was
attached, what is dirty is on the array, and paths and link are gone when it returns.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import time
from typing import Any

from ..guest import kernel
from .steps import Attached, map_over, side_by_side, write_out

_HOSTS = "/sys/class/fc_host"
_PORTS = "/sys/class/fc_remote_ports"
_BY_PATH = "/dev/disk/by-path"
_BY_ID = "/dev/disk/by-id"
_SG_IO = 0x2285


def attach(properties: dict[str, Any]) -> tuple[Attached, str]:
    """Scan the LUN on each way at once; return it with what took how long.

    No program for a single path, one for a map.
    """
    began = time.monotonic()
    lun = properties["target_lun"]
    ways = ways_of(properties)
    disks = tuple(side_by_side(lambda way: _scan(*way, lun), ways))
    told = f"{time.monotonic() - began:.3f} disks"
    if len(disks) == 1:
        end = f"-fc-0x{ways[0][1]}-lun-{lun}"
        path = kernel.wait_for(lambda: _link_to(disks[0], end), "the disk's link")
        map_name = ""
    else:
        dm = kernel.wait_for(lambda: map_over(disks), f"a map over {disks}")
        told += f"; {time.monotonic() - began:.3f} map"
        kernel.run("multipath", "-C", dm)
        told += f"; {time.monotonic() - began:.3f} multipath -C"
        map_name = kernel.read(f"/sys/block/{dm}/dm/name")
        path = f"{_BY_ID}/dm-uuid-{kernel.read(f'/sys/block/{dm}/dm/uuid')}"
        kernel.wait_for(lambda: os.path.exists(path), "the map's link")
    told += f"; {time.monotonic() - began:.3f} link"
    return Attached(path, disks, map_name), told


def detach(attached: Attached) -> str:
    """Look, write out what is dirty, remove map and paths, wait until these and the link are gone.

    :returns: what took how long.
    """
    began = time.monotonic()
    _refuse_if_claimed(attached.path)
    side_by_side(_refuse_if_another, attached.disks)
    told = f"{time.monotonic() - began:.3f} looked"
    write_out(attached.path)
    told += f"; {time.monotonic() - began:.3f} written out"
    if attached.map_name:
        kernel.run("multipath", "-f", attached.map_name)
        told += f"; {time.monotonic() - began:.3f} multipath -f"
    side_by_side(_delete, attached.disks)
    told += f"; {time.monotonic() - began:.3f} gone"
    kernel.wait_for(lambda: not os.path.lexists(attached.path), "the link gone")
    return told + f"; {time.monotonic() - began:.3f} link"


def ways_of(properties: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the WWPNs of each way, (this host's port, the array's), in lower case."""
    found = properties["initiator_target_map"].items()
    return [(one.lower(), other.lower()) for one, others in found for other in others]


def address_of(port: str, target_id: str, lun: int) -> str:
    """Return the SCSI address behind a remote port, whose name has host and channel.

    :param port: ``rport-HOST:CHANNEL-NUMBER``.
    """
    host, _, rest = port.removeprefix("rport-").partition(":")
    return f"{host}:{rest.partition('-')[0]}:{target_id}:{lun}"


def _scan(initiator: str, target: str, lun: int) -> str:
    """Scan one LUN behind a port of the array, and return its disk."""
    host = next(h for h in kernel.names(_HOSTS) if _is(f"{_HOSTS}/{h}", initiator))
    prefix = f"rport-{host.removeprefix('host')}:"
    port = next(
        p
        for p in kernel.names(_PORTS)
        if p.startswith(prefix)
        and _is(f"{_PORTS}/{p}", target)
        and kernel.read(f"{_PORTS}/{p}/port_state") == "Online"
    )
    address = address_of(port, kernel.read(f"{_PORTS}/{port}/scsi_target_id"), lun)
    kernel.write(f"/sys/class/scsi_host/{host}/scan", " ".join(address.split(":")[1:]))
    block = f"/sys/class/scsi_device/{address}/device/block"
    return kernel.wait_for(lambda: kernel.names(block), "the disk")[0]


def _is(folder: str, wwpn: str) -> bool:
    return kernel.read(f"{folder}/port_name") == f"0x{wwpn}"


def _link_to(disk: str, end: str) -> str:
    for name in kernel.names(_BY_PATH):
        link = f"{_BY_PATH}/{name}"
        if name.endswith(end) and os.path.realpath(link) == f"/dev/{disk}":
            return link
    return ""


def _refuse_if_claimed(path: str) -> None:
    """Fail if a file system, a map or a program has the device for itself alone."""
    os.close(os.open(path, os.O_RDONLY | os.O_EXCL))


def _refuse_if_another(disk: str) -> None:
    """Fail if the array's answer to who the disk is has changed since it was attached."""
    with open(f"/sys/block/{disk}/device/vpd_pg83", "rb") as page:
        kept = page.read()
    assert _inquire(disk).startswith(kept), f"{disk} is another volume"


def _inquire(disk: str) -> bytes:
    """Ask a disk for its page of identities."""
    answer = ctypes.create_string_buffer(252)
    command = ctypes.create_string_buffer(bytes((0x12, 1, 0x83, 0, len(answer), 0)), 6)
    pointers = ctypes.addressof(answer), ctypes.addressof(command), 0
    # struct sg_io_hdr of the kernel's scsi/sg.h; -3 is SG_DXFER_FROM_DEV
    asked = ord("S"), -3, len(command), 0, 0, len(answer), *pointers, 10_000, 0, 0, 0
    header = struct.pack("@iiBBHIPPPIIiPBBBBHHiII0P", *asked, *[0] * 9)
    fd = os.open(f"/dev/{disk}", os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.ioctl(fd, _SG_IO, header)
    finally:
        os.close(fd)
    return answer.raw


def _delete(disk: str) -> None:
    kernel.write(f"/sys/block/{disk}/device/delete", "1")
    kernel.wait_for(lambda: not os.path.exists(f"/sys/block/{disk}"), f"{disk} gone")
