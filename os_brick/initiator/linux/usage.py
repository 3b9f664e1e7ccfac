# SPDX-License-Identifier: Apache-2.0
"""Refusing to take a disk away that somebody uses."""

from __future__ import annotations

from collections.abc import Collection

from os_brick import exception
from os_brick.initiator.linux import block
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host

# udev and LVM open a device for moments to look at it.
_SHORT_USE_S = 10.0


def refuse_if_used(
    host: Host, call: Call, names: Collection[str], allowed: Collection[str] = ()
) -> None:
    """Return when nobody uses some disks; those who only look at them get a moment to end.

    :param names: kernel names of the disks.
    :param allowed: kernel names of holders that belong to the volume.
    :raises DeviceInUse: names the disk and its users; nothing was changed.
    """
    if not names:
        return
    with call.step("look for users") as step:
        used = _find_users(host, call, names, allowed)
        if used:
            step.waited_for = "short-lived users"
            call.wait_until(
                lambda: not _find_users(host, call, names, allowed),
                what="end of use",
                limit_s=_SHORT_USE_S,
            )
            used = _find_users(host, call, names, allowed)
    for name, users in used.items():
        raise exception.DeviceInUse(device=f"/dev/{name}", users="; ".join(users))


def _find_users(
    host: Host, call: Call, names: Collection[str], allowed: Collection[str]
) -> dict[str, list[str]]:
    found = {}
    for name in names:
        holders = host.sysfs.names("block", name, "holders")
        users = [
            user
            for user in block.read_users(host, name)
            if not any(f" {holder} " in user for holder in allowed)
        ]
        # Whoever is shown as a holder has claimed it for himself, so that it need not be asked.
        if not users and not holders and host.dev.exists(name):
            users = _claims(host, call, name)
        if users:
            found[name] = users
    return found


def _claims(host: Host, call: Call, name: str) -> list[str]:
    try:
        if host.changes.is_claimed(call, name):
            return [f"{name} is held exclusively by another program"]
    except TimeoutError:
        return [f"{name} cannot be opened: another program's write-out to it does not end"]
    return []
