# SPDX-License-Identifier: Apache-2.0
"""RBD images that the kernel has mapped: which there are, and by what device.

Source: the kernel's ``Documentation/ABI/testing/sysfs-bus-rbd``; rbd(8).
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.rbd_volume import RbdImage
from os_brick.initiator.linux.sysfs import Tree

_BUS = "bus/rbd"
_LIST_LIMIT_S = 60.0
_READ_LIMIT_S = 15.0
# What stands for "no snapshot", in sysfs and in rbd's listing.
_NO_SNAPSHOT = "-"


@dataclass(frozen=True, slots=True)
class Mapping:
    """An image that the kernel has mapped.

    :ivar number: N of ``/dev/rbdN``.
    :ivar instance: tells it from a later one of the same number; None where sysfs was not looked
        at.
    """

    number: int
    image: RbdImage
    instance: int | None = None

    @property
    def name(self) -> str:
        """Its kernel name."""
        return f"rbd{self.number}"

    @property
    def path(self) -> str:
        """Its device node."""
        return f"/dev/{self.name}"

    def __str__(self) -> str:
        return f"{self.path} ({self.image})"


def has_bus(sysfs: Tree) -> bool:
    """Tell whether the kernel's RBD driver is loaded, as far as can be seen from here."""
    return sysfs.exists(_BUS)


def read_mappings(sysfs: Tree) -> list[Mapping]:
    """Return all mapped images, from sysfs."""
    numbers = [int(name) for name in sysfs.names(_BUS, "devices") if name.isdecimal()]
    return [found for number in sorted(numbers) if (found := _read(sysfs, number)) is not None]


def _read(sysfs: Tree, number: int) -> Mapping | None:
    where = (_BUS, "devices", str(number))
    instance = sysfs.instance(*where)
    pool, name = sysfs.text(*where, "pool"), sysfs.text(*where, "name")
    if instance is None or not pool or not name:
        return None  # it went while we looked
    snapshot = sysfs.text(*where, "current_snap", default=_NO_SNAPSHOT)
    image = RbdImage(
        pool,
        name,
        sysfs.text(*where, "pool_ns"),  # kernels before 4.19 know no namespaces
        "" if snapshot == _NO_SNAPSHOT else snapshot,
    )
    return Mapping(number, image, instance)


def is_there(sysfs: Tree, mapping: Mapping) -> bool:
    """Tell whether this very mapping still exists, as far as sysfs tells."""
    if mapping.instance is None:
        return has_bus(sysfs)
    return sysfs.instance(_BUS, "devices", str(mapping.number)) == mapping.instance


def read_size(sysfs: Tree, mapping: Mapping) -> int | None:
    """Return a mapping's size in bytes; None if it is gone.

    Of the driver's own file: that of the block device is behind while the device is open.
    """
    return sysfs.number("devices/rbd", str(mapping.number), "size")


def read_monitors(host: Host, call: Call, mapping: Mapping) -> set[str]:
    """Return the addresses of the monitors by which an image was mapped; empty if the
    kernel does not tell.

    They are the first word of what was written to map it, which only root may read.

    :raises ProcessExecutionError: it could not be read.
    """
    where = (_BUS, "devices", str(mapping.number), "config_info")
    try:
        text = host.sysfs.text(*where)
    except PermissionError:
        words = ("cat", host.sysfs.path(*where))
        result = host.programs.run(call, *words, limit_s=_READ_LIMIT_S)
        text = result.check().out if is_there(host.sysfs, mapping) else ""
    return addresses(text.split(" ")[0].split(","))


def addresses(monitors: Iterable[str]) -> set[str]:
    """Return the IP addresses among monitors (``10.0.0.1:6789``); names are left out."""
    found = set()
    for monitor in monitors:
        host = monitor.rpartition(":")[0].strip("[]")
        with contextlib.suppress(ValueError):
            found.add(str(ipaddress.ip_address(host)))
    return found


def find(host: Host, call: Call, image: RbdImage, args: Sequence[str]) -> list[Mapping]:
    """Return the mappings of an image: same pool, namespace, name and snapshot; mostly one.

    Where sysfs shows no RBD driver, the program ``rbd`` is asked: with an execute function of the
    service's own it may run where there is one.

    :param args: what ``rbd`` is told about the cluster.
    :raises ProcessExecutionError: the program failed.
    :raises OSError: the host could not be looked at.
    """
    if has_bus(host.sysfs):
        found = read_mappings(host.sysfs)
    else:
        words = ("rbd", "showmapped", "--format=json", *args)
        found = parse_listing(host.programs.run(call, *words, limit_s=_LIST_LIMIT_S).check().out)
    return [one for one in found if one.image == image]


def parse_listing(text: str) -> list[Mapping]:
    """Read ``rbd showmapped --format=json``: by number (Ceph before 13.2) or a list (bug 1884052).

    :raises ValueError: it is neither.
    """
    if not text.strip():
        return []
    listing = json.loads(text)
    entries = listing.values() if isinstance(listing, dict) else listing
    return [found for entry in entries if (found := _listed(entry)) is not None]


def _listed(entry: dict[str, Any]) -> Mapping | None:
    number = parse_device(str(entry.get("device", "")))
    if number is None or not entry.get("pool") or not entry.get("name"):
        return None
    snapshot = entry.get("snap") or _NO_SNAPSHOT
    image = RbdImage(
        entry["pool"],
        entry["name"],
        entry.get("namespace") or "",
        "" if snapshot == _NO_SNAPSHOT else snapshot,
    )
    return Mapping(number, image)


def parse_device(text: str) -> int | None:
    """Return N of the last line of what ``rbd map`` prints, ``/dev/rbdN``; None if it is none."""
    lines = text.split()
    name = lines[-1].removeprefix("/dev/rbd") if lines else ""
    return int(name) if name.isdecimal() else None
