# SPDX-License-Identifier: Apache-2.0
"""Active volumes as the kernel sees them: device-mapper mappings in sysfs."""

from __future__ import annotations

import re

from os_brick.initiator.linux import block
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.sysfs import Tree

_UUID = "LVM-"


def label(group: str, volume: str) -> str:
    """Return the name of a volume's mapping: hyphens of both names are doubled (dmsetup(8))."""
    return f"{group.replace('-', '--')}-{volume.replace('-', '--')}"


def find(sysfs: Tree, group: str, volume: str) -> str | None:
    """Return the kernel name (``"dm-3"``) of a volume's mapping; None if it is not active."""
    wanted = label(group, volume)
    for name in sysfs.names("block"):
        if (
            name.startswith("dm-")
            and sysfs.text("block", name, "dm/name") == wanted
            and sysfs.text("block", name, "dm/uuid").startswith(_UUID)
        ):
            return name
    return None


def any_suspended(sysfs: Tree, group: str) -> bool:
    """Tell whether any mapping of a group is suspended, as while LVM changes it."""
    # One hyphen alone ends the group's name: "vg--2-a" is of the group "vg-2", not of "vg".
    of_group = re.compile(f"{re.escape(group.replace('-', '--'))}-(?!-)")
    return any(
        sysfs.number("block", name, "dm/suspended") == 1
        for name in sysfs.names("block")
        if name.startswith("dm-") and of_group.match(sysfs.text("block", name, "dm/name"))
    )


def users(host: Host, group: str, volume: str) -> list[str]:
    """Return who has a volume in use for long: mounts and devices on top; readable for people."""
    name = find(host.sysfs, group, volume)
    return block.read_users(host, name) if name else []


def is_open(host: Host, call: Call, group: str, volume: str) -> bool:
    """Tell whether any program has a volume open, as far as that can be said."""
    if find(host.sysfs, group, volume) is None:
        return False
    return bool(host.changes.open_count(call, label(group, volume)))
