# SPDX-License-Identifier: Apache-2.0
"""INQUIRY pages as a target answers them (SPC-4 7.8), after what Linux's LIO target sends."""

from __future__ import annotations

_ASCII, _BINARY, _UTF8 = 2, 1, 3
_LOGICAL_UNIT, _TARGET_PORT = 0, 1
_ISCSI = 5


def page83(wwid: str, *, vendor: str, serial: str, port: int, target_name: str) -> bytes:
    """Return the device identification page of a unit as seen through one port of a target.

    :param wwid: the identity in udev's form, for example ``"36001405…"``; empty for a unit without
        one.
    :param port: relative target port number, from 1; these differ by path.
    """
    designators = [_of_wwid(wwid)] if wwid else []
    if wwid and wwid[0] != "1":
        designators.insert(1, _designator(1, _ASCII, f"{vendor:<8}{serial}".encode() + b"\0"))
    designators += [
        _designator(4, _BINARY, b"\0\0" + port.to_bytes(2, "big"), _TARGET_PORT),
        _designator(5, _BINARY, b"\0\0\0\0", _TARGET_PORT),
        _designator(8, _UTF8, _padded(f"{target_name},t,0x0001".encode()), _TARGET_PORT),
    ]
    return _page(0x83, b"".join(designators))


def page80(serial: str) -> bytes:
    """Return the unit serial number page."""
    return _page(0x80, serial.encode())


def sysfs_wwid(wwid: str) -> str:
    """Return what the kernel's ``device/wwid`` says of an identity in udev's form."""
    prefix = {"3": "naa.", "2": "eui.", "1": "t10.", "8": ""}.get(wwid[:1], "")
    return prefix + wwid[1:] if wwid else ""


def _page(number: int, content: bytes) -> bytes:
    return bytes([0, number]) + len(content).to_bytes(2, "big") + content


def _padded(text: bytes) -> bytes:
    return text + b"\0" * (4 - len(text) % 4)


def _of_wwid(wwid: str) -> bytes:
    kind, value = int(wwid[0]), wwid[1:]
    if kind in (2, 3):
        return _designator(kind, _BINARY, bytes.fromhex(value))
    if kind == 8:
        return _designator(kind, _UTF8, _padded(value.encode()))
    return _designator(kind, _ASCII, value.encode())


def _designator(kind: int, code_set: int, value: bytes, association: int = _LOGICAL_UNIT) -> bytes:
    # The port's designators say for which protocol they stand (PIV bit and protocol identifier).
    port = association == _TARGET_PORT
    first = (_ISCSI << 4 if port else 0) | code_set
    second = (0x80 if port else 0) | association << 4 | kind
    return bytes([first, second, 0, len(value)]) + value
