# SPDX-License-Identifier: Apache-2.0
"""What a subsystem answers when it is asked about namespaces: bytes or nvme-cli's text in, values
out.

Layouts: NVM Express base specification, Identify command; NVM command set specification, Identify
Namespace data structure.
"""

from __future__ import annotations

import json
import re
import struct
from typing import Any

from os_brick.initiator.linux.nvme_ids import NamespaceIds, normal_uuid

# Namespace identifier types of the descriptor list (CNS 03h).
_NGUID, _UUID = 2, 3
_DESCRIPTOR_HEADER = 4
_FLBAS_BYTE, _FORMATS_BYTE, _FORMAT_BYTES = 26, 128, 4
_DATA_SIZE_BYTE = 2  # of a format: log2 of the bytes in a block
_TYPED = re.compile(r'"?\b(uuid|nguid)"?\s*:\s*"?([0-9a-fA-F-]{32,36})\b')
_DESCRIBED = re.compile(
    r"Namespace Identification Descriptors|\bnidt\b|\"ns-descs\"", re.IGNORECASE
)
# "NVMe status: Invalid Namespace or Format: …(0x400b)"; up to 1.8 "NVMe Status:INVALID_NS(400b)".
_STATUS = re.compile(r"NVMe status:.*\((?:0x)?([0-9a-f]{1,4})\)", re.IGNORECASE)
_LISTED = re.compile(r"\[\s*\d+\s*\]\s*:\s*(0x[0-9a-fA-F]+|\d+)")


# -- bytes -----------------------------------------------------------------------------------
def parse_descriptors(data: bytes, nsid: int) -> NamespaceIds:
    """Return the identifiers in a namespace's descriptor list."""
    found = {_NGUID: "", _UUID: ""}
    at = 0
    while at + _DESCRIPTOR_HEADER <= len(data):
        kind, length = data[at], data[at + 1]
        if kind == 0 or length == 0:
            break
        value = data[at + _DESCRIPTOR_HEADER : at + _DESCRIPTOR_HEADER + length]
        if kind in found and len(value) == 16:
            found[kind] = normal_uuid(value.hex())
        at += _DESCRIPTOR_HEADER + length
    return NamespaceIds(found[_UUID], found[_NGUID], nsid)


def parse_list(data: bytes) -> list[int]:
    """Return the numbers in a namespace list, which ends at the first zero."""
    numbers = [number for (number,) in struct.iter_unpack("<I", data)]
    return numbers[: numbers.index(0)] if 0 in numbers else numbers


def parse_size(data: bytes) -> int | None:
    """Return a namespace's size in bytes; None if there is none (all zero: not active)."""
    if len(data) < _FORMATS_BYTE + _FORMAT_BYTES:
        return None
    (blocks,) = struct.unpack_from("<Q", data)
    at = _FORMATS_BYTE + _FORMAT_BYTES * _format_in_use(data[_FLBAS_BYTE])
    shift = data[at + _DATA_SIZE_BYTE] if at + _DATA_SIZE_BYTE < len(data) else 0
    return _size(blocks, shift)


def _format_in_use(flbas: int) -> int:
    """Return the index of the format in use: bits 3 to 0, and 6 to 5 above them."""
    return (flbas & 0x0F) | ((flbas >> 5) & 0x03) << 4


def _size(blocks: int, shift: int) -> int | None:
    # 512 bytes is the smallest block there is.
    return blocks << shift if blocks and 9 <= shift < 32 else None


# -- nvme-cli --------------------------------------------------------------------------------
def parse_described(text: str, nsid: int) -> NamespaceIds:
    """Return the identifiers that ``nvme ns-descs`` prints, as text or JSON of any version.

    :raises OSError: it is something else.
    """
    found = {}
    for kind, value in _TYPED.findall(text):
        if len(value.replace("-", "")) == 32:
            found[kind] = normal_uuid(value)
    if not found and not _DESCRIBED.search(text):
        raise OSError(f"nvme ns-descs printed no identifiers of a namespace: {text.strip()!r:.200}")
    return NamespaceIds(found.get("uuid", ""), found.get("nguid", ""), nsid)


def parse_status(text: str) -> int | None:
    """Return the NVMe status that ``nvme`` says a command has ended with; None if it says none."""
    match = _STATUS.search(text)
    return int(match[1], 16) if match else None


def parse_listed(text: str) -> list[int]:
    """Return the numbers that ``nvme list-ns`` prints: a line ``[   0]:0x1`` for each.

    :raises OSError: there are other lines.
    """
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        match = _LISTED.fullmatch(line)
        if match is None:
            raise OSError(f"nvme list-ns printed no list of namespaces: {line!r:.200}")
        found.append(int(match[1], 0))
    return found


def parse_id_ns(text: str) -> int | None:
    """Return the size in bytes from what ``nvme id-ns -o json`` prints; None if it is not told."""
    try:
        told: Any = json.loads(text)
        number = _format_in_use(int(told.get("flbas", 0)))
        return _size(int(told["nsze"]), int(told["lbafs"][number]["ds"]))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return None
