# SPDX-License-Identifier: Apache-2.0
"""Who a logical unit says it is: INQUIRY page 0x83 in the form that udev and multipath use.

That form is one digit for the kind of designator and its value: ``3`` NAA, ``2`` EUI-64, ``8`` SCSI
name string, ``1`` T10 vendor id; and ``S`` with vendor, model and serial number where only page
0x80 exists. Sources: SPC-4 7.8.6 (device identification), 7.8.17 (unit serial number), scsi_id(8),
multipath.conf(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

# SPC-4 table 604: designator types; only those that name a logical unit in all the world.
_T10, _EUI64, _NAA, _NAME = 1, 2, 3, 8
_LOGICAL_UNIT = 0  # association field
# From the strongest statement to the weakest: the first kind that two devices share decides.
_STRENGTH = "3281S"


@dataclass(frozen=True, slots=True)
class Identity:
    """The identities of one device in udev's form, the one udev prefers first; may be empty."""

    ids: tuple[str, ...] = ()

    @property
    def wwid(self) -> str:
        """The preferred identity; empty text if the device has none."""
        return self.ids[0] if self.ids else ""

    def same_as(self, other: Identity) -> bool | None:
        """Tell whether both are one logical unit; None if they have no kind of identity in
        common."""
        for kind in _STRENGTH:
            mine = {one for one in self.ids if one[0] == kind}
            theirs = {one for one in other.ids if one[0] == kind}
            if mine and theirs:
                return bool(mine & theirs)
        return None

    def is_wwid(self, wwid: str) -> bool | None:
        """Tell whether a wwid (of a map, or remembered by a caller) is this device's.

        None if that cannot be said: no wwid, or one of a kind the device does not have.
        """
        wwid = normal_form(wwid)
        if not wwid:
            return None
        if wwid in self.ids:
            return True
        # NAA values differ in length by format; another format says nothing about this one.
        comparable = {one for one in self.ids if one[0] == wwid[0] and len(one) == len(wwid)}
        return False if comparable and wwid[0] in "32" else None

    def __str__(self) -> str:
        return self.wwid or "unknown"


def normal_form(wwid: str) -> str:
    """Return a wwid as udev writes it: no blanks at the ends, each run of blanks one ``_``."""
    return re.sub(r"\s+", "_", wwid.strip("\0 \t\n"))


@lru_cache(maxsize=256)  # each disk's page is read several times in an attach or a detach
def parse_page83(page: bytes) -> Identity:
    """Return the identities in a device identification page; damaged parts are skipped.

    :param page: the page with its four bytes of header, as in sysfs ``vpd_pg83``.
    """
    found: list[str] = []
    if len(page) < 4 or page[1] != 0x83:
        return Identity()
    end = min(len(page), 4 + int.from_bytes(page[2:4], "big"))
    at = 4
    while at + 4 <= end:
        code_set, kind_and_association, length = page[at] & 0x0F, page[at + 1], page[at + 3]
        value = page[at + 4 : at + 4 + length]
        at += 4 + length
        if at > end or (kind_and_association >> 4) & 3 != _LOGICAL_UNIT:
            continue
        one = _udev_form(kind_and_association & 0x0F, code_set, value)
        if one and one not in found:
            found.append(one)
    return Identity(tuple(sorted(found, key=_preference)))


def parse_serial(vendor: str, model: str, page80: bytes) -> Identity:
    """Return the identity made of vendor, model and the unit serial number page, if it has one."""
    if len(page80) <= 4 or page80[1] != 0x80:
        return Identity()
    serial = (
        page80[4 : 4 + int.from_bytes(page80[2:4], "big")].decode("ascii", "replace").strip("\0 ")
    )
    if not serial:
        return Identity()
    return Identity((normal_form(f"S{vendor:<8}{model:<16}{serial}"),))


def vendor_and_model(standard: bytes) -> tuple[str, str]:
    """Return both from the standard answer to an INQUIRY (SPC-4 6.4.2), as sysfs shows them."""
    text = standard[8:32].decode("ascii", "replace")
    return text[:8].strip("\0 "), text[8:].strip("\0 ")


def from_udev(text: str) -> Identity:
    """Return the identity that ``scsi_id`` printed."""
    one = normal_form(text)
    return Identity((one,) if one else ())


def join(identities: Iterable[Identity]) -> Identity:
    """Return one identity with all that several say of one device, order kept."""
    return Identity(tuple(dict.fromkeys(one for identity in identities for one in identity.ids)))


def _preference(one: str) -> tuple[int, int]:
    """Order of udev's scsi_id: NAA (the longest format first), EUI-64, then text."""
    return _STRENGTH.index(one[0]), -len(one) if one[0] == "3" else 0


def _udev_form(kind: int, code_set: int, value: bytes) -> str:
    if not value.strip(b"\0 "):
        return ""
    if kind in (_NAA, _EUI64):
        if code_set == 1:
            return f"{kind}{value.hex()}"
        return f"{kind}{value.decode('ascii', 'replace').strip().lower()}"
    if kind in (_T10, _NAME):
        return normal_form(f"{kind}{value.decode('utf-8', 'replace')}")
    return ""
