# SPDX-License-Identifier: Apache-2.0
"""Whether a device may be formatted: only what is known to be empty is.

cryptsetup cannot be asked for this alone. Its ``isLuks`` says "no" (exit code 1, in the same words)
also where the header could not be read, and a device that fails to read for a moment may be
written the next: a volume full of data would be lost.
"""

from __future__ import annotations

from oslo_concurrency import processutils

from os_brick import exception
from os_brick.encryptors import commands
from os_brick.encryptors.mapping import Device
from os_brick.initiator.linux import block, changes
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host

# What is overwritten at the start of the device: 16 MiB for LUKS2. For LUKS1 it depends on the
# storage: 2 MiB rounded up to its optimal size of transfers, which often is some MiB.
_HEADER_BYTES = 16 << 20

_PROBE_LIMIT_S = 60.0
# Of blkid(8): nothing was found, and several things that contradict each other.
_NOTHING = 2
_AMBIVALENT = 8


def check(host: Host, call: Call, device: Device) -> None:
    """Return if a device is readable, unused, no LUKS volume, and without any other content that
    is known.

    :raises FormatRefused: it is not, or this could not be found out; the text tells which.
    """
    for look in (_users, _luks, _signatures, _start):
        reason = look(host, call, device)
        if reason:
            raise exception.FormatRefused(device=device.path, reason=reason)


def _users(host: Host, call: Call, device: Device) -> str:
    return "; ".join(block.read_users(host, device.name))


def _luks(host: Host, call: Call, device: Device) -> str:
    result = commands.is_luks(host, call, device.path)
    if result.code == commands.WRONG_PARAMETERS:
        return ""
    if result.code == 0:
        return "it is a LUKS volume already."
    return f"whether it is a LUKS volume could not be found out ({result.summary})."


def _signatures(host: Host, call: Call, device: Device) -> str:
    words = ("blkid", "--probe", "--output", "export", device.path)
    result = host.programs.run(call, *words, limit_s=_PROBE_LIMIT_S)
    if result.code == _NOTHING and not result.out.strip():
        return ""
    if result.code in (0, _AMBIVALENT):
        found = " ".join(line for line in result.out.split() if "TYPE=" in line) or "several things"
        return (
            f"it holds other data ({found}). If that is not needed, take it away with wipefs and "
            "try again."
        )
    return f"what it holds could not be found out ({result.summary})."


def _start(host: Host, call: Call, device: Device) -> str:
    # Last: what was read here is what the other two have seen.
    try:
        found = host.changes.holds_luks(call, device.name, device.number, _HEADER_BYTES)
    except changes.FAILURES as exc:
        said = exc.stderr if isinstance(exc, processutils.ProcessExecutionError) else exc
        return f"its start could not be read ({said or exc})."
    return "it holds a LUKS header, a damaged one perhaps." if found else ""
