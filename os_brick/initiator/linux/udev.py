# SPDX-License-Identifier: Apache-2.0
"""What udev knows of block devices: it learns of them, and of their end, later than the kernel.

Read from its database below ``/run/udev/data``, a file for each device by its number; the lines are
described in systemd's ``src/libsystemd/sd-device/device-private.c``.
"""

from __future__ import annotations

from collections.abc import Collection

from os_brick.initiator.linux.host import Host


def says_multipath(host: Host, name: str) -> bool | None:
    """Tell whether udev has found that multipathd takes a disk (True) or leaves it alone (False).

    Its rule 60-multipath.rules asks ``multipath -u`` about each new disk and keeps the answer as
    ``DM_MULTIPATH_DEVICE_PATH`` in udev's database. None: it has not said so, or not yet.
    """
    text = _line(host, name, "E:DM_MULTIPATH_DEVICE_PATH=")
    return None if text is None else text != "0"


def knows(host: Host, number: str) -> bool:
    """Tell whether a block device is in udev's database, by its number ``major:minor``."""
    return host.run.exists("udev/data", f"b{number}")


def knows_removed(host: Host, number: str) -> bool:
    """Tell whether udev knows a device that is gone still; not if its number is another's."""
    return knows(host, number) and not host.sysfs.exists("dev/block", number)


def has_events(host: Host) -> bool:
    """Tell whether udev has events to handle; False where it cannot be seen."""
    return host.run.exists("udev/queue")


def is_late(host: Host, name: str) -> bool:
    """Tell whether udev has not been through with a disk yet; False where it cannot be seen."""
    number = host.sysfs.text("block", name, "dev")
    return host.run.exists("udev/data") and not knows(host, number)


def is_through(host: Host, name: str, members: Collection[str]) -> bool:
    """Tell whether what udev shows of a device made over others is of this very device.

    The kernel gives the number of a device that is gone to the next one. An event of the old one
    that udev handles late shows it the new one: it makes its links, takes them away again with the
    old one's end, and makes them once more when it comes to the beginning of the new one. Until
    then its record is older than those of the devices below.
    """
    if not has_events(host):
        return True
    own = _since(host, name)
    below = [since for since in (_since(host, one) for one in members) if since is not None]
    return own is not None and bool(below) and own >= min(below)


def _since(host: Host, name: str) -> int | None:
    """Return when udev first saw a device: microseconds on the kernel's monotonic clock."""
    text = _line(host, name, "I:")
    return int(text) if text is not None and text.isdecimal() else None


def _line(host: Host, name: str, key: str) -> str | None:
    number = host.sysfs.text("block", name, "dev")
    for line in host.run.text("udev/data", f"b{number}").splitlines():
        if line.startswith(key):
            return line.removeprefix(key)
    return None
