# SPDX-License-Identifier: Apache-2.0
"""Sizes as LVM and its callers write them, and as bytes. All arithmetic is exact.

LVM's units (lvm(8), ``--units``): small letters count by 1024, capital ones by 1000; a size
without a letter is one of mebibytes.
"""

from __future__ import annotations

import decimal
import re
from decimal import Decimal

from os_brick import exception

GIB = 1 << 30
TIB = 1 << 40
_LETTERS = "kmgtpe"
_SECTOR = 512
_SIZE = re.compile(r"(\+?)(\d+(?:\.\d+)?)([bBsSkKmMgGtTpPeE]?)")
# Enough for every byte count below 2**128 as a fraction of GiB.
_EXACT = decimal.Context(prec=80)


def parse_bytes(text: str) -> int | None:
    """Return the bytes in a field of a report (``"4194304"``, also with a letter: ``"1.50g"``).

    :returns: None if it is no size, as an empty field.
    """
    match = _SIZE.fullmatch(text.strip().removeprefix("<"))
    return _bytes(match[2], match[3] or "b") if match else None


def requested_bytes(text: str, before: int = 0) -> int:
    """Return the bytes that a caller asks for: ``"10g"``, ``"1.5T"``, ``"512"``, or ``"+1g"``.

    :param before: the volume's size now, to which ``+`` adds.
    :raises InvalidParameterValue: it is no size.
    """
    match = _SIZE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise exception.InvalidParameterValue(
            err=f"size: {text!r} is not a number with a unit letter, such as '10g'"
        )
    asked = _bytes(match[2], match[3] or "m")
    return before + asked if match[1] else asked


def _bytes(number: str, letter: str) -> int:
    if letter in "bB":
        unit = 1
    elif letter in "sS":
        unit = _SECTOR
    else:
        base = 1000 if letter.isupper() else 1024
        unit = int(base ** (_LETTERS.index(letter.lower()) + 1))
    return int(_EXACT.multiply(Decimal(number), Decimal(unit)))


def gib(size: int) -> float:
    """Return bytes as GiB."""
    return size / GIB


def gib_text(size: int) -> str:
    """Return bytes as GiB in exact decimal text: ``"1.00"``, ``"0.00390625"``."""
    whole, rest = divmod(size, GIB)
    digits = format(_EXACT.divide(Decimal(rest), Decimal(GIB)), "f")
    return f"{whole}.{digits.partition('.')[2].rstrip('0'):0<2}"


def mirror_region(size: int) -> int | None:
    """Return the region size (MiB) of a mirror's log for a volume: None for LVM's default.

    Its log has room for 1.5 TiB with the default; above that it is the next power of two of the
    size in TiB.
    """
    if size < TIB + TIB // 2:
        return None
    region = 1
    while region * TIB < size:
        region *= 2
    return region
