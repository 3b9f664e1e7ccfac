# SPDX-License-Identifier: Apache-2.0
"""What identifies a namespace, and which disk its entries in sysfs lead to; values only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

#: Name of a namespace's entry below its controller: a disk, or a hidden path to one.
ENTRY = re.compile(r"(nvme\d+)(?:c\d+)?(n\d+)")


def head_of(name: str) -> str:
    """Return the disk to use for a namespace's entry: ``nvme0c1n2`` → ``nvme0n2``; other names
    stay."""
    match = ENTRY.fullmatch(name)
    return match[1] + match[2] if match else name


def normal_uuid(text: str) -> str:
    """Return a UUID or NGUID in lower case with hyphens, as sysfs shows it; empty if all zero.

    :raises ValueError: it is none.
    """
    value = UUID(text.strip())
    return str(value) if value.int else ""


@dataclass(frozen=True, slots=True)
class NamespaceIds:
    """What identifies a namespace; only ``uuid`` and ``nguid`` do so beyond its subsystem.

    :ivar uuid: in lower case with hyphens; empty if there is none.
    :ivar nguid: the same.
    """

    uuid: str = ""
    nguid: str = ""
    nsid: int | None = None

    def __bool__(self) -> bool:
        return bool(self.uuid or self.nguid) or self.nsid is not None

    def fits(self, shown: NamespaceIds) -> bool | None:
        """Tell whether a namespace that shows these is the one with mine; None if nothing is said
        of any identifier that I have. One that contradicts any of them does not fit.

        The kernel shows the NGUID as ``uuid`` where there is no UUID.
        """
        verdicts = [verdict for verdict in self._verdicts(shown) if verdict is not None]
        return all(verdicts) if verdicts else None

    def _verdicts(self, shown: NamespaceIds) -> Iterable[bool | None]:
        if self.uuid:
            told = shown.uuid if shown.uuid != shown.nguid else ""
            same = self.uuid in (shown.uuid, shown.nguid)
            yield True if same else False if told else None
        if self.nguid:
            told = shown.nguid
            same = self.nguid == told or (not told and self.nguid == shown.uuid)
            yield True if same else False if told else None
        if self.nsid is not None and shown.nsid is not None:
            yield self.nsid == shown.nsid

    def __str__(self) -> str:
        told = {"uuid": self.uuid, "nguid": self.nguid, "nsid": self.nsid}
        return (
            ", ".join(f"{name} {value}" for name, value in told.items() if value not in ("", None))
            or "no identifier"
        )
