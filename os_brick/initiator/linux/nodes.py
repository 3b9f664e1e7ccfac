# SPDX-License-Identifier: Apache-2.0
"""Device nodes: which block device a path such as ``/dev/disk/by-id/…`` leads to now.

Links are hints: they may be left over from an earlier device, come late, or vanish while they are
looked at. So what comes out is the device behind a path at this moment and says nothing about whose
it is.
"""

from __future__ import annotations

import os

from os_brick.initiator.linux.host import Host

_DEV = "/dev/"


def real_node(host: Host, path: str | None) -> str | None:
    """Return the device node that a path leads to, all links followed.

    :param path: absolute path; links outside of ``/dev`` may lead into it.
    :returns: for example ``"/dev/sda"`` or ``"/dev/mapper/control"``; None if the path leads
        nowhere, or out of ``/dev``.
    :raises OSError: the host could not be looked at.
    """
    if not path:
        return None
    if not path.startswith(_DEV):
        path = os.path.realpath(path)
    if not path.startswith(_DEV):
        return None
    real = host.dev.real_path(path.removeprefix(_DEV))
    root = f"{os.path.realpath(host.dev.root)}/"
    return _DEV + real.removeprefix(root) if real is not None and real.startswith(root) else None


def kernel_name(host: Host, path: str | None) -> str | None:
    """Return the kernel name (``"sda"``, ``"dm-3"``) of the block device that a path leads to.

    :returns: None if there is no such device.
    :raises OSError: the host could not be looked at.
    """
    node = real_node(host, path)
    if node is None:
        return None
    name = node.removeprefix(_DEV)
    if "/" not in name:
        return name
    # Without udev, libdevmapper makes real nodes in /dev/mapper: their number tells who they are.
    number = host.dev.device_number(name)
    return host.sysfs.link_name("dev/block", f"{number[0]}:{number[1]}") if number else None
