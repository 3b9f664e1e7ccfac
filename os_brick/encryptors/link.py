# SPDX-License-Identifier: Apache-2.0
"""The link by which a volume is used: to its device at first, to the mapping while it is open."""

from __future__ import annotations

import os
from typing import Any

from os_brick import exception, utils
from os_brick.encryptors import mapping as mappings
from os_brick.encryptors.mapping import Device, Mapping
from os_brick.initiator.linux import nodes
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host

_DEV = "/dev/"


def path_of(connection_info: dict[str, Any]) -> str:
    """Return the path that the connector handed out, ``connection_info["data"]["device_path"]``.

    :raises VolumeEncryptionNotSupported: there is none, as for volumes that QEMU attaches itself.
    :raises InvalidParameterValue: it is no absolute path.
    """
    data = connection_info.get("data") or {}
    path = utils.convert_str(data.get("device_path"))
    if not path or not isinstance(path, str):
        raise exception.VolumeEncryptionNotSupported(
            volume_id=data.get("volume_id") or connection_info.get("serial"),
            volume_type=connection_info.get("driver_volume_type"),
        )
    if not path.startswith("/") or path.endswith("/"):
        raise exception.InvalidParameterValue(
            err=f"device_path: {path!r} is not the absolute path of a device"
        )
    return path


def target(host: Host, path: str) -> str | None:
    """Return the text of the link; None if nothing is there, or something that is no link.

    :raises OSError: the host could not be looked at.
    """
    if path.startswith(_DEV):
        return host.dev.link_target(path.removeprefix(_DEV))
    return os.readlink(path) if os.path.islink(path) else None


def leads_to(host: Host, path: str, label: str) -> bool:
    """Tell whether the link has been pointed at the mapping with a name, which may be gone."""
    return target(host, path) == f"/dev/mapper/{label}"


def check_ours(host: Host, path: str) -> None:
    """Return if the path may be replaced: it is a link, or nothing is there.

    :raises InvalidParameterValue: it is a device's own node. In its place the link would be in the
        way of the next device of that name, for ever (bug 1964379, bug 1703954). Or it is a file,
        as volumes of NFS are: the link would take its place, and all of its data would be lost.
    :raises OSError: the host could not be looked at.
    """
    if target(host, path) is None and (
        nodes.real_node(host, path) is not None or _is_outside(path)
    ):
        raise exception.InvalidParameterValue(
            err=f"device_path: {path} is a device's own node, or a file. Expected is a link that "
            "may be replaced, as connect_volume returns it for properties with 'encrypted': True."
        )


def _is_outside(path: str) -> bool:
    """Tell whether something is there that is not below ``/dev``."""
    if path.startswith(_DEV):
        return False
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def find_device(host: Host, path: str, opened: Mapping | None) -> Device | None:
    """Return the volume's own device, also while the link leads to its mapping; None if the path
    leads nowhere.

    :param opened: the mapping with the volume's name, if there is one.
    """
    found = mappings.find_device(host, path)
    if found is not None and opened is not None and found.name == opened.name:
        below = mappings.devices_below(host, opened)
        return below[0] if len(below) == 1 else None
    if found is None:
        # The mapping that it leads to is gone. The connector's links tell their device by name.
        named = utils._device_path_from_symlink(path)
        return mappings.find_device(host, named) if named != path else None
    return found


def point_to_mapping(host: Host, call: Call, path: str, label: str) -> None:
    """Have the link lead to the mapping, in one step."""
    host.changes.link(call, f"/dev/mapper/{label}", path)


def point_back(host: Host, call: Call, path: str, label: str, device: Device) -> None:
    """Have the link lead to the device again, if it leads to the mapping."""
    if leads_to(host, path, label) and host.dev.exists(device.name):
        host.changes.link(call, device.path, path)
