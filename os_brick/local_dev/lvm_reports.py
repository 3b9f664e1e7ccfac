# SPDX-License-Identifier: Apache-2.0
"""What ``vgs``, ``lvs`` and ``pvs`` report, as values. Pure: text in, values out.

The format is that of ``--reportformat json`` (lvmreport(7), LVM 2.02.158 and later); sizes are
those of ``--units b --nosuffix``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from os_brick import exception
from os_brick.local_dev import lvm_sizes

#: Columns of each kind of report.
GROUP_COLUMNS = "vg_name,vg_size,vg_free,lv_count,vg_uuid"
DISK_COLUMNS = "vg_name,pv_name,pv_size,pv_free,pv_missing"
VOLUME_COLUMNS = "vg_name,lv_name,lv_size,lv_attr,origin,pool_lv,lv_time,data_percent"

# What lines of a report begin with. Warnings may stand before them and between, where an execute
# function joins the two outputs of a program.
_OF_REPORT = tuple('{}[],"')
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_ORIGINS = ("o", "O")
_FALSE = ("", "0")


@dataclass(frozen=True, slots=True)
class VolumeGroup:
    """A volume group; sizes in bytes."""

    name: str
    size: int
    free: int
    volumes: int
    uuid: str


@dataclass(frozen=True, slots=True)
class PhysicalVolume:
    """A disk of a group (or, with an empty ``group``, of none); sizes in bytes.

    :ivar name: its path; ``[unknown]`` if it is missing.
    """

    group: str
    name: str
    size: int
    free: int
    missing: bool


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """A volume; its size in bytes.

    :ivar kind: first letter of its attributes (lvs(8)): ``o`` and ``O`` origin of thick snapshots,
        ``s`` thick snapshot, ``V`` thin, ``t`` thin pool, ``-`` plain …
    :ivar origin: name of the volume that it is a snapshot of; empty for others.
    :ivar pool: name of its thin pool; empty for thick ones.
    :ivar made_at: seconds since the epoch; None if LVM does not know.
    :ivar used_percent: of a pool or snapshot; None where it was not asked for or is not known, as
        of an inactive one.
    """

    group: str
    name: str
    size: int
    kind: str
    origin: str
    pool: str
    made_at: int | None
    used_percent: Decimal | None

    @property
    def has_thick_snapshots(self) -> bool:
        """Whether it is the origin of thick snapshots; thin ones are volumes of their own."""
        return self.kind in _ORIGINS

    @property
    def free(self) -> float | None:
        """What is free of a pool, in GiB with two decimals; None if that is not known."""
        if self.used_percent is None:
            return None
        used = Decimal(self.size) * self.used_percent / 100
        return round(float(Decimal(self.size) - used) / lvm_sizes.GIB, 2)


def parse_groups(text: str) -> list[VolumeGroup]:
    """Return the groups of a report with :data:`GROUP_COLUMNS`."""
    return [
        VolumeGroup(
            name=_field(row, "vg_name"),
            size=_size(row, "vg_size"),
            free=_size(row, "vg_free"),
            volumes=_number(row, "lv_count"),
            uuid=_field(row, "vg_uuid"),
        )
        for row in _rows(text, "vg")
    ]


def parse_disks(text: str) -> list[PhysicalVolume]:
    """Return the disks of a report with :data:`DISK_COLUMNS`."""
    return [
        PhysicalVolume(
            group=_field(row, "vg_name"),
            name=_field(row, "pv_name"),
            size=_size(row, "pv_size"),
            free=_size(row, "pv_free"),
            missing=_field(row, "pv_missing") not in _FALSE,
        )
        for row in _rows(text, "pv")
    ]


def parse_volumes(text: str) -> list[LogicalVolume]:
    """Return the volumes of a report with :data:`VOLUME_COLUMNS`, as far as they are visible."""
    return [
        LogicalVolume(
            group=_field(row, "vg_name"),
            name=_field(row, "lv_name"),
            size=_size(row, "lv_size"),
            kind=_field(row, "lv_attr")[:1],
            origin=_plain(_field(row, "origin")),
            pool=_plain(_field(row, "pool_lv")),
            made_at=_seconds(_field(row, "lv_time")),
            used_percent=_percent(_field(row, "data_percent")),
        )
        for row in _rows(text, "lv")
        # Hidden volumes are written [so], historical ones -so: both are no volumes of a caller's.
        if not _field(row, "lv_name").startswith(("[", "-"))
    ]


def parse_version(text: str) -> tuple[int, int, int]:
    """Return LVM's version from ``vgs --version``: ``(2, 3, 16)`` for ``2.03.16(2)``.

    :raises BrickException: there is none.
    """
    for line in text.splitlines():
        words = line.split()
        if "LVM version" in line and len(words) > 2:
            match = _VERSION.match(words[2])
            if match:
                return int(match[1]), int(match[2]), int(match[3])
    raise exception.BrickException("Cannot parse LVM version")


def _rows(text: str, kind: str) -> list[dict[str, Any]]:
    """Return the rows of a report.

    :raises BrickException: the text is no report of this kind.
    """
    lines = [line.strip() for line in text.splitlines()]
    try:
        found = json.loads("".join(line for line in lines if line.startswith(_OF_REPORT)))
        return [row for report in found["report"] for row in report.get(kind, ())]
    except (ValueError, LookupError, TypeError, AttributeError) as exc:
        raise _unreadable(text) from exc


def _field(row: dict[str, Any], name: str) -> str:
    value = row.get(name, "")
    return value.strip() if isinstance(value, str) else str(value)


def _size(row: dict[str, Any], name: str) -> int:
    size = lvm_sizes.parse_bytes(_field(row, name))
    if size is None:
        raise _unreadable(f"{name} in {row}")
    return size


def _number(row: dict[str, Any], name: str) -> int:
    text = _field(row, name)
    if not text.isdecimal():
        raise _unreadable(f"{name} in {row}")
    return int(text)


def _plain(name: str) -> str:
    return name.strip("[]")


def _seconds(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _percent(text: str) -> Decimal | None:
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def _unreadable(text: str) -> exception.BrickException:
    return exception.BrickException(
        f"LVM's report cannot be read: {text[:200]!r}; it has to be JSON (LVM 2.02.158 or later)"
    )
