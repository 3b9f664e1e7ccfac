# SPDX-License-Identifier: Apache-2.0
"""The commands of cryptsetup, as values of how they ended.

A passphrase goes to cryptsetup's standard input and nowhere else; ``--key-file=-`` has it read to
its end, newlines included.
"""

from __future__ import annotations

from typing import Any

from os_brick import exception
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.programs import Result

# Exit codes (cryptsetup(8), RETURN CODES).
WRONG_PARAMETERS = 1  # among them: the device is no LUKS device; also errors without a code
WRONG_DEVICE = 4  # not there, no access, no such mapping
BUSY = 5  # the mapping exists, or the device or mapping is in use

_LIMIT_S = 600.0  # that of execute functions: hashing a passphrase may take long on a slow machine
_PROBE_LIMIT_S = 60.0

_FROM_STDIN = "--key-file=-"


def options(kwargs: dict[str, Any]) -> list[str]:
    """Return cipher and key size from encryption metadata as options.

    :raises InvalidParameterValue: one of them is neither a value for cryptsetup nor empty.
    """
    words: list[str] = []
    cipher = kwargs.get("cipher")
    if cipher:
        if not isinstance(cipher, str):
            raise exception.InvalidParameterValue(
                err=f"cipher: {cipher!r} is no name of a cipher, such as 'aes-xts-plain64'"
            )
        words += ["--cipher", cipher]
    size = kwargs.get("key_size")
    if size:
        text = str(size)
        if isinstance(size, bool) or not (text.isascii() and text.isdigit()):
            raise exception.InvalidParameterValue(
                err=f"key_size: {size!r} is no number of bits, such as 256"
            )
        words += ["--key-size", text]
    return words


def is_luks(host: Host, call: Call, device: str) -> Result:
    """Ask whether a device holds a LUKS header: 0 yes, 1 no or an error, 4 it is not there."""
    return _run(host, call, "isLuks", "--verbose", device, limit_s=_PROBE_LIMIT_S)


def format_luks(
    host: Host, call: Call, passphrase: str, version: str, more: list[str], device: str
) -> Result:
    """Write a LUKS header, whatever is there.

    In batch mode no dictionary is needed to judge the passphrase (bug 1861120). The type is named:
    its default depends on the version of cryptsetup (bug 1831994, bug 1834851).

    :param version: ``"luks1"`` or ``"luks2"``.
    :param more: see :func:`options`.
    """
    words = ("--batch-mode", "luksFormat", "--type", version, _FROM_STDIN, *more, device)
    return _run(host, call, *words, stdin=passphrase)


def open_luks(host: Host, call: Call, passphrase: str, device: str, label: str) -> Result:
    """Make the mapping of a LUKS volume: 2 is a wrong passphrase."""
    return _run(host, call, "luksOpen", _FROM_STDIN, device, label, stdin=passphrase)


def try_passphrase(host: Host, call: Call, passphrase: str, device: str) -> Result:
    """Try a passphrase on a LUKS volume, without opening it: 2 is a wrong one."""
    words = ("luksOpen", "--test-passphrase", _FROM_STDIN, device)
    return _run(host, call, *words, stdin=passphrase)


def open_plain(
    host: Host, call: Call, passphrase: str, more: list[str], device: str, label: str
) -> Result:
    """Make a mapping without a header; a wrong passphrase cannot be told from a right one.

    It is what ``cryptsetup create`` is short for.
    """
    words = ("open", "--type", "plain", _FROM_STDIN, *more, device, label)
    return _run(host, call, *words, stdin=passphrase)


def close(host: Host, call: Call, verb: str, label: str) -> Result:
    """Remove a mapping: 4 there is none, 5 it is in use.

    :param verb: ``"luksClose"`` or ``"close"``, which do the same.
    """
    return _run(host, call, verb, label)


def resize(host: Host, call: Call, passphrase: str, label: str) -> Result:
    """Have a mapping take all of its device.

    LUKS2 asks for the passphrase, since the volume key is in the kernel's keyring.
    """
    return _run(host, call, "resize", _FROM_STDIN, label, stdin=passphrase)


def status(host: Host, call: Call, label: str) -> Result:
    """Ask for a mapping's state: 0 it is one of cryptsetup's and active, 1 or 4 it is not."""
    return _run(host, call, "status", label, limit_s=_PROBE_LIMIT_S)


def _run(
    host: Host, call: Call, *words: str, stdin: str | None = None, limit_s: float = _LIMIT_S
) -> Result:
    return host.programs.run(call, "cryptsetup", *words, limit_s=limit_s, stdin=stdin)
