# SPDX-License-Identifier: Apache-2.0
"""SCSI devices as sysfs shows them: LUN numbers, addresses, disks, identities."""

from __future__ import annotations

from dataclasses import dataclass

from os_brick import constants, exception
from os_brick.initiator.linux.identity import Identity, parse_page83, parse_serial
from os_brick.initiator.linux.sysfs import Tree

# SAM-5 4.7.7.3: flat space addressing sets the method bits 01b above a 14 bit number.
_FLAT = 0x4000
_FLAT_LUNS = range(_FLAT, 2 * _FLAT)
# Peripheral device types (SPC-4 table 147) that hold no data of anybody: processor, array
# controller, enclosure, well-known logical unit, unknown. Arrays show one of these as LUN 0.
_NO_DATA_TYPES = frozenset({0x03, 0x0C, 0x0D, 0x1E, 0x1F})


# -- LUN numbers -----------------------------------------------------------------------------
def lun_number(value: object, key: str = "target_lun") -> int:
    """Return a LUN given as number or as text of one.

    :raises InvalidParameterValue: naming ``key`` and what was expected.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        number = -1
    elif isinstance(value, int):
        number = value
    else:
        number = int(value.strip()) if value.strip().isdecimal() else -1
    if 0 <= number < 2**64:
        return number
    raise exception.InvalidParameterValue(
        err=f"{key}: expected a LUN number from 0, as a number or its decimal text, got {value!r}"
    )


def lun_for_addressing(lun: int, addressing_mode: str | None = None) -> int:
    """Return the number under which the kernel knows a LUN (SAM-5 4.7, property
    ``addressing_mode``).

    :raises InvalidParameterValue: for an unknown mode, or a LUN beyond the 14 bits of flat
        addressing.
    """
    mode = addressing_mode or constants.SCSI_ADDRESSING_SAM
    if mode not in constants.SCSI_ADDRESSING_MODES:
        raise exception.InvalidParameterValue(err=f"Invalid addressing_mode {addressing_mode}")
    flat = mode == constants.SCSI_ADDRESSING_SAM3_FLAT or (
        mode == constants.SCSI_ADDRESSING_SAM2 and lun >= 256
    )
    if not flat:
        return lun
    if lun >= _FLAT:
        raise exception.InvalidParameterValue(
            err=f"target_lun: {lun} does not fit the 14 bits of addressing_mode {mode}"
        )
    return lun + _FLAT


def same_lun(one: int, other: int) -> bool:
    """Tell whether two kernel LUN numbers are the same logical unit, whatever their addressing
    method."""
    return plain_lun(one) == plain_lun(other)


def plain_lun(lun: int) -> int:
    """Return the number that a kernel LUN stands for: without the bits of flat addressing."""
    return lun - _FLAT if lun in _FLAT_LUNS else lun


def lun_variants(lun: int) -> tuple[int, ...]:
    """Return the kernel numbers under which a LUN may appear, the given one first."""
    plain = plain_lun(lun)
    return tuple(dict.fromkeys((lun, plain, plain + _FLAT))) if plain < _FLAT else (lun,)


def lun_for_by_path(lun: int) -> str:
    """Return a LUN as udev's by-path names spell it: decimal below 256, else the 64 bits in hex."""
    if lun < 256:
        return str(lun)
    return f"0x{lun & 0xFFFF:04x}{lun >> 16 & 0xFFFF:04x}00000000"


# -- addresses and disks ---------------------------------------------------------------------
@dataclass(frozen=True, slots=True, order=True)
class Hctl:
    """The kernel's address of a SCSI device: host, channel, target, LUN."""

    host: int
    channel: int
    target: int
    lun: int

    @classmethod
    def parse(cls, text: str) -> Hctl | None:
        """Return the address in ``"3:0:0:1"``; None if it is none."""
        words = text.split(":")
        if len(words) != 4 or not all(word.isdecimal() for word in words):
            return None
        return cls(*(int(word) for word in words))

    def __str__(self) -> str:
        return f"{self.host}:{self.channel}:{self.target}:{self.lun}"


@dataclass(frozen=True, slots=True, order=True)
class Disk:
    """One disk (path to a volume) as it was seen; a later one of the same name is another
    instance."""

    name: str
    hctl: Hctl
    instance: int

    @property
    def path(self) -> str:
        """Its device node."""
        return f"/dev/{self.name}" if self.name else f"SCSI device {self.hctl}"

    def __str__(self) -> str:
        return f"{self.name or 'nameless'} [{self.hctl}]"


def device_instance(sysfs: Tree, hctl: Hctl) -> int | None:
    """Return the instance of the SCSI device at an address; None if there is none."""
    return sysfs.instance("bus/scsi/devices", str(hctl))


def read_disk(sysfs: Tree, hctl: Hctl) -> Disk | None:
    """Return the disk at an address; None while there is none (or no disk driver has taken
    it yet)."""
    instance = device_instance(sysfs, hctl)
    if instance is None:
        return None
    names = sysfs.names("bus/scsi/devices", str(hctl), "block")
    return Disk(names[0], hctl, instance) if names else None


def read_bare(sysfs: Tree, hctl: Hctl) -> Disk | None:
    """Return the device at an address though no disk driver has taken it (yet), without a name.

    None if there is none, or if it holds no data of anybody.
    """
    instance = device_instance(sysfs, hctl)
    return Disk("", hctl, instance) if instance and holds_data(sysfs, hctl) else None


def read_disk_named(sysfs: Tree, name: str) -> Disk | None:
    """Return the SCSI disk with a kernel name (``"sda"``, a partition counts as its disk),
    or None."""
    if not sysfs.exists("block", name):
        parent = sysfs.link_target("class/block", name)
        if parent is None or not sysfs.exists("class/block", name, "partition"):
            return None
        name = parent.rstrip("/").split("/")[-2]
    hctl = Hctl.parse(sysfs.link_name("block", name, "device") or "")
    if hctl is None:
        return None
    disk = read_disk(sysfs, hctl)
    return disk if disk is not None and disk.name == name else None


def is_there(sysfs: Tree, disk: Disk) -> bool:
    """Tell whether this very disk still exists."""
    return device_instance(sysfs, disk.hctl) == disk.instance


def state(sysfs: Tree, disk: Disk) -> str:
    """Return the device state (``running``, ``blocked``, ``offline``, ``transport-offline`` …), or
    ""."""
    return sysfs.text("bus/scsi/devices", str(disk.hctl), "state")


def holds_data(sysfs: Tree, hctl: Hctl) -> bool:
    """Tell whether the device at an address may be somebody's: not an array's controller LUN."""
    kind = sysfs.number("bus/scsi/devices", str(hctl), "type")
    return kind is not None and kind not in _NO_DATA_TYPES


def read_identity(sysfs: Tree, disk: Disk) -> Identity:
    """Return the identity in the pages that the kernel keeps of a disk; empty if it has none.

    They are as old as the device or its last rescan. ``device/wwid`` is not used: it is one
    designator only, and in a form of its own.
    """
    device = ("bus/scsi/devices", str(disk.hctl))
    identity = parse_page83(sysfs.data(*device, "vpd_pg83") or b"")
    if identity.ids:
        return identity
    page80 = sysfs.data(*device, "vpd_pg80") or b""
    return parse_serial(sysfs.text(*device, "vendor"), sysfs.text(*device, "model"), page80)
