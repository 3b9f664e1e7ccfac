# SPDX-License-Identifier: Apache-2.0
"""Mappings of dm-crypt: their names, and what sysfs says of one."""

from __future__ import annotations

import hashlib
import posixpath
import re
from dataclasses import dataclass

from os_brick.initiator.linux import nodes
from os_brick.initiator.linux.host import Host

_PREFIX = "crypt-"
_LONGEST = 127  # DM_NAME_LEN of linux/dm-ioctl.h, less the final zero
_SHORTENED = 96
_DIGEST = 16
# libdevmapper writes any other character of a name as \xNN in /dev/mapper.
_UNUSUAL = re.compile(r"[^A-Za-z0-9#+.:=@_-]")


def name_of(link: str) -> str:
    """Return the name of the mapping for the volume that is used by ``link``.

    It is ``crypt-`` and the link's own name. (The plain name may belong to a multipath map.) Where
    that is no name for a mapping, too long or with characters that are written otherwise in
    ``/dev/mapper``, it is shortened and a digest of the whole path keeps it apart from others.
    """
    own = posixpath.basename(link)
    name = _PREFIX + own
    if len(name) <= _LONGEST and not _UNUSUAL.search(name):
        return name
    digest = hashlib.sha256(link.encode(errors="surrogateescape")).hexdigest()[:_DIGEST]
    return f"{_UNUSUAL.sub('_', name)[:_SHORTENED]}-{digest}"


@dataclass(frozen=True, slots=True)
class Device:
    """A block device at one moment.

    :ivar name: kernel name, ``"dm-3"``.
    :ivar number: ``"253:3"``.
    """

    name: str
    number: str

    @property
    def path(self) -> str:
        """Its node."""
        return f"/dev/{self.name}"


@dataclass(frozen=True, slots=True)
class Mapping:
    """A device-mapper mapping at one moment.

    :ivar label: its name, as in ``/dev/mapper``.
    :ivar name: kernel name, ``"dm-7"``.
    :ivar uuid: of the device mapper: ``CRYPT-<type>-…`` for mappings of cryptsetup.
    """

    label: str
    name: str
    uuid: str

    @property
    def path(self) -> str:
        """The path that users open."""
        return f"/dev/mapper/{self.label}"

    @property
    def is_crypt(self) -> bool:
        """Whether cryptsetup made it."""
        return self.uuid.startswith("CRYPT-")

    def is_of(self, kind: str) -> bool:
        """Whether it is of a kind: ``"LUKS"`` (1 and 2) or ``"PLAIN"``."""
        return self.uuid.startswith(f"CRYPT-{kind}")


def find_device(host: Host, path: str) -> Device | None:
    """Return the block device that a path leads to now; None if there is none.

    :raises OSError: the host could not be looked at.
    """
    name = nodes.kernel_name(host, path)
    number = host.sysfs.text("class/block", name, "dev") if name else ""
    return Device(name, number) if name and number else None


def find(host: Host, label: str, *, thoroughly: bool = False) -> Mapping | None:
    """Return the mapping with a name; None if there is none.

    :param thoroughly: look through all mappings, if its link in ``/dev/mapper`` is not there.
    """
    name = nodes.kernel_name(host, f"/dev/mapper/{label}")
    names = [name] if name else []
    if thoroughly:
        names += [one for one in host.sysfs.names("block") if one.startswith("dm-")]
    for one in names:
        # The link may be left over, and the device another's by now.
        if host.sysfs.text("block", one, "dm/name") == label:
            return Mapping(label, one, host.sysfs.text("block", one, "dm/uuid"))
    return None


def devices_below(host: Host, mapping: Mapping) -> list[Device]:
    """Return the devices that a mapping sits on."""
    names = host.sysfs.names("block", mapping.name, "slaves")
    numbers = {name: host.sysfs.text("class/block", name, "dev") for name in names}
    return [Device(name, number) for name, number in numbers.items() if number]


def sits_on(host: Host, mapping: Mapping, device: Device) -> bool:
    """Tell whether a mapping sits on this very device.

    Both have to say so: the mapping names a device of that number as the one below it, and the
    device that has the number today names the mapping as its holder. (A mapping stays when its disk
    goes, and the disk's number is soon given to another.)
    """
    numbers = [one.number for one in devices_below(host, mapping)]
    held = host.sysfs.exists("class/block", device.name, "holders", mapping.name)
    return device.number in numbers and held
